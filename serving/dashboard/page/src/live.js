// The stream of events, and coming back to it.

import { parse } from "./numbers.js";

// A server with many views to make lets each wait its turn.
const SILENCE_MAX = 20000;
const WAITS = [500, 1000, 1000, 2000, 2000, 5000];

export class Live {
  // `on` has the functions history, series, tick and state(name, detail).
  constructor(on) {
    this.on = on;
    this.failures = 0;
    this.timer = 0;
    this.source = null;
    this.heard = 0;
    setInterval(() => this.watch(), 1000);
    addEventListener("online", () => this.open());
    addEventListener("pagehide", () => this.close());
    addEventListener("pageshow", (event) => event.persisted && this.open());
  }

  follow(query) {
    if (query === this.query) return;
    this.query = query;
    this.failures = 0;
    this.on.state("connecting");
    this.open();
  }

  close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  open() {
    this.close();
    const source = new EventSource(`/v1/live?${this.query}`);
    this.source = source;
    this.heard = Date.now();
    const listen = (name) =>
      source.addEventListener(name, (event) => {
        if (this.source !== source) return;
        this.heard = Date.now();
        try {
          this.on[name](parse(event.data));
        } catch (error) {
          // What cannot be shown must not leave older numbers there as live ones.
          this.again();
          throw error;
        }
        if (name === "tick") {
          this.failures = 0;
          this.on.state("live");
        }
      });
    ["history", "series", "tick"].forEach(listen);
    source.onerror = () => this.source === source && this.again();
  }

  again() {
    this.close();
    const wait = WAITS[Math.min(this.failures, WAITS.length - 1)];
    this.failures += 1;
    this.on.state("lost");
    this.timer = setTimeout(() => this.retry(), wait);
  }

  // An event source does not say why it was refused: the same question by fetch does.
  async retry() {
    const query = this.query;
    if (this.failures > 1) {
      const stop = new AbortController();
      try {
        const answer = await fetch(`/v1/live?${query}`, { signal: stop.signal });
        if (query !== this.query) return;
        if (answer.status === 400) {
          const problem = await answer.json();
          this.on.state("refused", problem.detail);
          return;
        }
      } catch {
        if (query === this.query) this.again();
        return;
      } finally {
        stop.abort();
      }
    }
    if (query === this.query) this.open();
  }

  watch() {
    if (this.source && Date.now() - this.heard > SILENCE_MAX) this.again();
  }
}
