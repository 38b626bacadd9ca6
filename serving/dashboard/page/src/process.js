// How the server is: rates, lag, watermark, signals, audits, dead letters, partitions.

import { $, h, number, table, text } from "./dom.js";
import { Rates } from "./charts.js";
import { ago, bytesless, clock, count, millis, minute, parse, rate, seconds, whole } from "./numbers.js";

const SHOWN_MS = 300000;
const LOOK_MS = 60000;
const AUDITS_MAX = 5;
const TILES = [
  ["rate", "Events per second"],
  ["counted", "Counted since the start"],
  ["lag", "Lag"],
  ["watermark", "Watermark"],
  ["verdict", "Latest audit"],
  ["dead", "Dead letters since the start"],
];

export class Process {
  constructor() {
    this.rows = [];
    this.stored = [];
    this.looked = 0;
    this.shown = new Map();
    this.chart = new Rates($("rate-chart"));
    const tile = ([id, name]) => h("div", { class: "tile", id: `tile-${id}` }, h("h2", {}, name), h("p", { class: "value number", id: `${id}-value` }, "–"), h("p", { class: "sub", id: `${id}-sub` }, ""));
    $("tiles").replaceChildren(...TILES.map(tile));
    const key = (kind, name) => [h("span", { class: `key ${kind}`, "aria-hidden": "true" }), name];
    $("rate-key").replaceChildren(...key("batch", "counted"), ...key("before", "duplicate"), ...key("dead", "dead"));
    $("rate-table").addEventListener("toggle", () => this.tabled());
  }

  history({ columns, rows }) {
    const at = ["time_ms", "counted", "duplicate", "dead", "records"].map((name) => columns.indexOf(name));
    this.rows = rows.map((row) => at.map((index) => row[index]));
    // The server may be another one.
    this.looked = 0;
    if (this.rows.length) this.draw();
  }

  tick(event) {
    this.event = event;
    const newest = event.per_second;
    if (newest && newest.time_ms > (this.rows[this.rows.length - 1]?.[0] ?? 0)) {
      this.rows.push([newest.time_ms, newest.counted, newest.duplicate, newest.dead, newest.records]);
      if (this.rows.length > 600) this.rows.shift();
    }
    this.tiles(event);
    this.draw();
    if ($("rate-table").open) this.tabled();
    this.signals(event.signals);
    this.audit(event.audit);
    this.dead(event);
    this.log(event);
    this.notices(event);
  }

  tiles(event) {
    const { totals, per_second: now, lag, serving } = event;
    const tile = (id, shown, exact, sub) => {
      number($(`${id}-value`), shown, exact);
      text($(`${id}-sub`), sub);
    };
    if (event.counts_here) {
      tile("rate", rate(now?.counted), now?.counted, now ? `${rate(now.duplicate)} duplicate, ${rate(now.dead)} dead per second` : "");
      tile("counted", count(totals.counted), totals.counted, `${count(totals.accepted)} accepted, ${count(totals.duplicate)} duplicate`);
      tile("dead", count(totals.dead), totals.dead, totals.dead ? "refused, kept with their reason" : "none");
    } else {
      tile("rate", rate(now?.records), now?.records, "records of the log; events are counted elsewhere");
      tile("counted", "–", null, "counted by another process");
      tile("dead", "–", null, "see below");
    }
    const silent = lag.silent_partitions ? `, ${lag.silent_partitions} partitions silent` : "";
    tile("lag", `${count(lag.records)} records`, lag.records, lag.seconds ? `${ago(lag.seconds)} behind${silent}` : `all is counted${silent}`);
    const mark = serving?.watermark;
    tile("watermark", mark ? clock(mark) : "–", mark ?? null, mark ? `UTC, ${ago(seconds(event.now) - seconds(mark))} ago; settled before it` : "not known: a counter is silent");
    this.verdict(event, tile);
  }

  verdict({ audit, now }, tile) {
    const run = this.runs(audit).find((run) => run.state !== "running");
    const box = $("tile-verdict");
    if (!run) {
      box.dataset.kind = "";
      tile("verdict", "–", null, audit ? "none has ended yet" : "audits run elsewhere");
      return;
    }
    const failed = run.state === "failed";
    const balanced = run.verdict === "balanced" && !failed;
    box.dataset.kind = balanced ? "good" : "bad";
    const shown = failed ? "✗ failed" : balanced ? "✓ balanced" : `✗ ${count(run.errors)} findings`;
    const expected = whole(run.expected) ? `, ${count(run.expected)} expected differences` : "";
    tile("verdict", shown, run.verdict ?? run.state, `${ago(seconds(now) - seconds(run.finished_at))} ago, ${count(run.events)} raw events${expected}`);
  }

  draw() {
    const end = this.event ? Date.parse(this.event.now) : this.rows[this.rows.length - 1]?.[0];
    if (!end) return;
    const shown = this.rows.filter((row) => row[0] >= end - SHOWN_MS);
    const column = this.event && !this.event.counts_here ? shown.map((row) => [row[0], row[4], 0, 0]) : shown;
    this.chart.show(column, [(end - SHOWN_MS) / 1000, end / 1000]);
    const newest = shown[shown.length - 1];
    if (newest) $("rate-chart").setAttribute("aria-label", `Events per second over the last five minutes, now ${rate(newest[1])} counted, ${rate(newest[2])} duplicate, ${rate(newest[3])} dead. The table below has every second.`);
  }

  tabled() {
    if (!$("rate-table").open) return;
    const columns = [{ name: "Time, UTC", time: true }, ...["Counted", "Duplicate", "Dead"].map((name) => ({ name, number: true }))];
    const rows = this.rows.slice(-60).reverse().map((row) => [clock(row[0]), rate(row[1]), rate(row[2]), rate(row[3])]);
    $("rate-table").querySelector(".scroll").replaceChildren(table("Events per second, the last 60 seconds, newest first", columns, rows));
  }

  signals(of) {
    if (!of) return;
    text($("signals-window"), `last ${ago(of.window_seconds)}`);
    const used = (100 * of.under_way) / of.under_way_max;
    const cards = [
      ["latency", "Latency", millis(of.latency_p50_ms), `p50; p99 ${millis(of.latency_p99_ms)}`],
      ["traffic", "Traffic", rate(of.requests_per_second), "requests per second"],
      ["errors", "Errors", rate(of.errors_per_second), "5xx answers per second"],
      ["saturation", "Saturation", `${rate(used)} %`, `${count(of.under_way)} of ${count(of.under_way_max)} requests under way, ${count(of.streams)} of ${count(of.streams_max)} streams`],
    ];
    const card = ([id, name, value, sub]) => h("div", { id: `signal-${id}`, "data-kind": id === "errors" && of.errors_per_second > 0 ? "bad" : null }, h("dt", {}, name), h("dd", {}, h("span", { class: "value number" }, value), h("span", { class: "sub" }, sub)));
    $("signals-body").replaceChildren(...cards.map(card));
  }

  audit(audit) {
    const runs = this.runs(audit);
    this.replace("audit-body", JSON.stringify(runs), () => {
      if (runs.length === 0) return h("p", { class: "empty" }, "No audit has ended yet. reckon audit starts one.");
      const columns = [{ name: "Ended, UTC", time: true }, { name: "Verdict", time: true }, { name: "Findings", number: true }, { name: "Expected", number: true }, { name: "Raw events", number: true }];
      const row = (run) => [
        run.finished_at ? h("a", { href: `/v1/audit/runs/${encodeURIComponent(run.id)}/page` }, run.finished_at.slice(0, 16).replace("T", " ")) : `running: ${run.step}`,
        h("span", { class: "verdict", "data-kind": run.verdict === "balanced" ? "good" : run.state === "running" ? "" : "bad" }, run.state === "failed" ? "✗ failed" : run.verdict === "balanced" ? "✓ balanced" : run.verdict === "findings" ? "✗ findings" : run.state),
        count(run.errors),
        count(run.expected),
        count(run.events),
      ];
      return table("The latest audits", columns, runs.map(row));
    });
    $("audit-link").hidden = !runs.some((run) => run.finished_at);
  }

  // The audits of this process; where none has ended in it, those that are stored too.
  runs(audit) {
    const own = audit?.runs ?? [];
    if (own.some((run) => run.state !== "running")) return own;
    this.look();
    return [...own, ...this.stored].slice(0, AUDITS_MAX);
  }

  // Audits of before the server's start, and of other processes, are in a table; asked for once a minute.
  async look() {
    if (Date.now() - this.looked < LOOK_MS) return;
    this.looked = Date.now();
    const query = `select run_id, finished_at, verdict, errors, expected, events from audit_runs order by finished_at desc limit ${AUDITS_MAX}`;
    try {
      const answer = await fetch("/v1/sql", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ query }) });
      if (!answer.ok) return;
      const { rows } = parse(await answer.text());
      this.stored = rows.map(([id, finished_at, verdict, errors, expected, events]) => ({ id, finished_at, verdict, errors, expected, events, state: "succeeded" }));
    } catch {
      // In a minute, then.
    }
  }

  dead(event) {
    const letters = event.dead_letters;
    this.replace("dead-body", JSON.stringify(letters), () => {
      if (!letters) return h("p", { class: "empty" }, "Looking…");
      if (letters.error) return h("p", { class: "empty" }, `Not known now: ${letters.error}`);
      if (letters.reasons.length === 0) return h("p", { class: "empty" }, "None: every event could be read.");
      const reasons = table("Archived dead letters by reason", [{ name: "Reason" }, { name: "Letters", number: true }], letters.reasons.map((at) => [at.reason, count(at.count)]));
      const newest = table(
        "The newest",
        [{ name: "Received, UTC", time: true }, { name: "Reason" }, { name: "What is wrong" }],
        letters.newest.map((at) => [at.received_at.slice(0, 19).replace("T", " "), at.reason, bytesless(at.message, 120)]),
      );
      return h("div", {}, reasons, newest);
    });
  }

  log({ serving, batch }) {
    const chip = $("log-batch");
    const ended = batch?.finished_at ? ` ${clock(batch.finished_at)} UTC` : "";
    text(chip, batch ? `batch run ${batch.state === "running" ? batch.step : batch.state}${ended}` : "");
    chip.dataset.kind = batch?.state === "failed" ? "bad" : "";
    if (!serving) return;
    this.replace("log-body", JSON.stringify(serving.partitions), () => {
      const columns = [{ name: "Partition", number: true }, ...["Covered by batch", "Sealed", "Counted", "Log end"].map((name) => ({ name, number: true })), { name: "State" }];
      const row = (at) => [at.partition, count(at.coverage), count(at.sealed), count(at.position), count(at.durable_end), at.trouble ?? "counts"];
      return table(`Offsets of the log; batch version ${serving.batch_version}`, columns, serving.partitions.map(row));
    });
  }

  // Built anew only when it says something else, so that whoever reads or selects is not disturbed.
  replace(id, key, build) {
    const body = $(id);
    if (this.shown.get(id) === key) return;
    this.shown.set(id, key);
    body.replaceChildren(build());
  }

  notices({ ready, reasons, damaged, series, now }) {
    const lines = [];
    if (!ready) lines.push(`Not ready: ${reasons.join("; ") || "no reason is given"}.`);
    else if (reasons.length) lines.push(`${reasons.join("; ")}.`);
    if (damaged) lines.push(`${count(damaged)} damaged files or records: what needs them is not answered.`);
    const incomplete = series?.provenance && !series.provenance.complete;
    if (incomplete) lines.push("The counts below are incomplete: see what is missing.");
    this.replace("notices", JSON.stringify(lines), () => h("div", {}, lines.map((line) => h("p", { class: "notice", "data-kind": "bad" }, line))));
    $("notices").dataset.at = minute(now, now);
  }

  repaint() {
    this.chart.clear();
    if (this.rows.length) this.draw();
  }
}
