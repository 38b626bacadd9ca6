// Counts of the chosen entity over time.

import { $, number, table, text } from "./dom.js";
import { Steps } from "./charts.js";
import { titleOf } from "./controls.js";
import { change, count, minute, parse, seconds, whole } from "./numbers.js";
import { address } from "./state.js";

const ROWS_MAX = 500;
const STATES = {
  settled: "Settled: every minute lies before the watermark.",
  corrected: "Corrected: settled, and late events have been added since.",
  provisional: "Provisional: the newest minutes may still grow.",
};

export class Entity {
  constructor() {
    this.chart = new Steps($("entity-chart"));
    this.points = new Map();
    this.about = null;
    this.past = null;
    this.trouble = null;
    this.refusal = null;
    $("entity-table").addEventListener("toggle", () => this.tabled());
  }

  follow(state) {
    const key = address({ ...state, compare: "", top: "", top_window: "" });
    this.compare = Boolean(state.compare);
    const changed = key !== this.key;
    if (changed) {
      this.key = key;
      this.points = new Map();
      this.about = null;
      this.trouble = null;
      this.titled(state.entity);
      $("entity-body").hidden = true;
      $("entity-state").hidden = true;
      delete $("entity").dataset.positions;
      this.said();
    }
    // An answer that is still on its way is of another view then.
    if (changed || !this.compare) this.past = this.asked = null;
    text($("entity-title"), state.entity ? `Counts of ${state.entity}` : "Counts of an entity");
    if (this.about) this.show();
  }

  async titled(id) {
    if (id === this.id) return;
    this.id = id;
    this.title = null;
    if (!id) return;
    const title = await titleOf(id);
    if (id === this.id) this.title = title;
  }

  refused(detail) {
    this.refusal = detail ?? null;
    if (detail) {
      this.about = null;
      $("entity-body").hidden = true;
      $("entity-state").hidden = true;
    }
    this.said();
  }

  // Why there are no counts, or older ones; that stays in sight until there are new ones.
  said() {
    const said = this.refusal ?? this.trouble;
    $("entity-error").hidden = !said;
    text($("entity-error"), said ?? "");
  }

  series(series) {
    this.points = new Map(series.points.map((point) => [point.start, point]));
  }

  tick(event, state) {
    const of = event.series;
    if (!of) return;
    this.now = event.now;
    this.trouble = of.error ? `No answer now: ${of.error}.${this.about ? " What stands below is older." : ""}` : null;
    this.said();
    if (of.error) {
      $("entity-state").dataset.kind = "bad";
      text($("entity-state"), "no answer now");
      return;
    }
    for (const point of of.changed) this.points.set(point.start, point);
    for (const start of of.gone) this.points.delete(start);
    this.about = of;
    this.type = state.type;
    this.show();
    if (this.compare) this.look(state);
  }

  show() {
    const of = this.about;
    $("entity-body").hidden = false;
    text($("entity-title"), this.title ? `${this.title} · ${of.entity_id}` : `Counts of ${of.entity_id}`);
    number($("entity-count"), count(of.count), of.count);
    number($("entity-batch"), count(of.batch), of.batch);
    number($("entity-stream"), count(of.stream), of.stream);
    text($("entity-what"), `${this.type ? `${this.type} events` : "events"} ${this.between()}`);
    this.provenance();
    this.before();
    this.draw();
    if ($("entity-table").open) this.tabled();
  }

  between() {
    const { from, to } = this.about.window;
    const said = (time) => minute(time, this.now);
    if (!from) return to ? `before ${said(to)} UTC` : "in all";
    return `from ${said(from)} to ${to ? said(to) : "now"} UTC`;
  }

  provenance() {
    const of = this.about.provenance;
    const chip = $("entity-state");
    chip.hidden = false;
    chip.dataset.kind = of.complete ? of.state : "bad";
    text(chip, of.complete ? of.state : "incomplete");
    chip.title = STATES[of.state];
    $("entity").dataset.positions = of.partitions.map((at) => `${at.partition}:${at.position}`).join(" ");
    $("entity").dataset.state = of.state;
    const missing = of.missing.map((at) => at.reason ?? at.what).filter(Boolean);
    const notes = [];
    if (!of.complete) notes.push(`Incomplete: ${missing.join("; ") || "some of it is missing"}.`);
    notes.push(STATES[of.state]);
    if (of.watermark) notes.push(`Watermark ${minute(of.watermark, this.now)} UTC.`);
    if (of.late) notes.push(`${count(of.late)} came late.`);
    if (of.definitions_mixed) notes.push("Counted under more than one definition.");
    notes.push(`Batch version ${of.batch_version}.`);
    text($("entity-note"), notes.join(" "));
  }

  // All steps of the window, those without events too.
  steps() {
    const step = this.about.step_minutes * 60;
    const starts = [...this.points.keys()].map(seconds);
    const { from, to } = this.about.window;
    const down = (at) => Math.floor(at / step) * step;
    const first = from ? down(seconds(from)) : Math.min(...starts);
    const last = to ? seconds(to) : Math.max(...starts) + step;
    const held = new Map([...this.points.values()].map((point) => [seconds(point.start), point]));
    const all = [];
    for (let at = first; at < last && all.length < 20000; at += step) all.push([at, held.get(at)]);
    return { step, all, first, last };
  }

  draw() {
    if (this.points.size === 0 && !this.about.window.from) return;
    const { step, all, first, last } = this.steps();
    const part = (name) => all.map(([, point]) => Number(point?.[name] ?? 0));
    const watermark = this.about.provenance.watermark;
    this.chart.show({
      starts: all.map(([at]) => at),
      batch: part("batch"),
      stream: part("stream"),
      before: this.past && this.compare ? all.map(([at]) => this.past.values.get(at - this.past.shift) ?? 0) : null,
      step,
      watermark: watermark ? seconds(watermark) : null,
      from: first,
      to: Math.max(last, first + step),
    });
    const peak = [...this.points.values()].reduce((most, point) => (sum(point) > sum(most) ? point : most), { batch: 0, stream: 0 });
    const said = peak.start ? ` Most in one step: ${count(sum(peak))} at ${minute(peak.start, this.now)} UTC.` : "";
    $("entity-chart").setAttribute("aria-label", `${count(this.about.count)} events ${this.between()}, ${count(this.about.batch)} counted by batch and ${count(this.about.stream)} by the stream.${said} The table below has every step.`);
  }

  tabled() {
    if (!this.about || !$("entity-table").open) return;
    const rows = [...this.points.values()].sort((a, b) => (a.start < b.start ? 1 : -1));
    const watermark = this.about.provenance.watermark;
    const length = this.about.step_minutes * 60;
    const settled = (point) => watermark && seconds(point.start) + length <= seconds(watermark);
    const columns = [{ name: "Start, UTC", time: true }, { name: "Batch", number: true }, { name: "Stream", number: true }, { name: "In all", number: true }, { name: "Late", number: true }, { name: "State" }];
    const more = rows.length > ROWS_MAX ? `, the newest ${ROWS_MAX} of ${count(rows.length)} steps` : "";
    const made = table(
      `Counts by step, newest first${more}`,
      columns,
      rows.slice(0, ROWS_MAX).map((point) => [point.start.slice(0, 16).replace("T", " "), count(point.batch), count(point.stream), count(sum(point)), count(point.late), settled(point) ? "settled" : "provisional"]),
    );
    $("entity-table").querySelector(".scroll").replaceChildren(made);
  }

  // The period before, asked for once a minute, for late events are added to it too.
  async look(state) {
    const { from, to } = this.about.window;
    if (!from || !to) return;
    const key = `${this.key} ${from} ${to} ${this.now.slice(0, 16)}`;
    if (key === this.asked) return;
    this.asked = key;
    const shift = seconds(to) - seconds(from);
    const then = (time) => new Date(Date.parse(time) - shift * 1000).toISOString();
    const query = new URLSearchParams({ from: then(from), to: then(to), step: `${this.about.step_minutes}m` });
    for (const name of ["type", "filter"]) if (state[name]) query.set(name, state[name]);
    try {
      const answer = await fetch(`/v1/entities/${encodeURIComponent(this.about.entity_id)}/stats?${query}`);
      const found = answer.ok ? parse(await answer.text()) : null;
      if (key !== this.asked) return;
      if (!found) {
        this.past = null;
        this.show();
        return;
      }
      const values = new Map(found.points.map((point) => [seconds(point.start), Number(point.value)]));
      // Steps are aligned to 1970: a shift that is no whole number of steps is taken to the nearest.
      const step = found.step_minutes * 60;
      this.past = { total: found.total, complete: found.provenance.complete, values, shift: Math.round(shift / step) * step };
      this.show();
    } catch {
      if (key === this.asked) this.past = this.asked = null;
    }
  }

  before() {
    const cell = $("entity-before-cell");
    cell.hidden = !(this.compare && this.past);
    if (cell.hidden) return;
    const by = change(this.about.count, this.past.total);
    number($("entity-before"), `${count(this.past.total)}${by ? ` (${by})` : ""}${this.past.complete ? "" : ", incomplete"}`, this.past.total);
  }

  repaint() {
    this.chart.clear();
    if (this.about) this.draw();
  }
}

function sum(point) {
  return whole(point.batch) + whole(point.stream);
}
