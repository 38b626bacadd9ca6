// The two charts. What they draw stands in tables beside them, exactly; here doubles will do.

import uPlot from "uplot";
import { minute, rate } from "./numbers.js";

const utc = (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC");
const SIZE = 12;

export function colours() {
  const style = getComputedStyle(document.documentElement);
  return new Proxy({}, { get: (_, name) => style.getPropertyValue(`--${name}`).trim() });
}

function font() {
  return `${SIZE}px ${getComputedStyle(document.body).fontFamily}`;
}

const SHORT = [
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
];

function short(value) {
  const unit = SHORT.find(([size]) => Math.abs(value) >= size);
  return unit ? `${rate(value / unit[0])}${unit[1]}` : rate(value);
}

function axes(of, told = short) {
  const common = { stroke: of.faint, font: font(), grid: { stroke: of.line, width: 1 }, ticks: { show: false } };
  return [
    { ...common, grid: { show: false }, size: 38, gap: 6, space: 68, values: (_, at) => labels(at) },
    { ...common, size: 48, space: 28, values: (_, at) => at.map(told) },
  ];
}

// Times of an axis in UTC; the date where it changes.
function labels(at) {
  return at.map((second, index) => {
    const time = second * 1000;
    const iso = new Date(time).toISOString();
    if (at.length > 1 && at[1] - at[0] < 60) return iso.slice(11, 19);
    if (at.length > 1 && at[1] - at[0] >= 86400) return iso.slice(5, 10);
    const other = index > 0 && new Date(at[index - 1] * 1000).toISOString().slice(0, 10) !== iso.slice(0, 10);
    return other || (index === 0 && at[at.length - 1] - at[0] > 86400) ? `${iso.slice(11, 16)}\n${iso.slice(5, 10)}` : minute(time, time);
  });
}

class Chart {
  constructor(element) {
    this.element = element;
    this.plot = null;
    new ResizeObserver(() => this.resize()).observe(element);
  }

  size() {
    return { width: Math.max(200, this.element.clientWidth), height: Math.max(120, this.element.clientHeight) };
  }

  resize() {
    if (this.plot) this.plot.setSize(this.size());
  }

  // Made anew when its colours or its series change.
  clear() {
    this.plot?.destroy();
    this.plot = null;
  }

  draw(data) {
    if (this.plot) this.plot.setData(data);
    else this.plot = new uPlot({ ...this.size(), tzDate: utc, legend: { show: false }, cursor: { show: false }, ...this.options() }, data, this.element);
  }
}

// Bars of batch and stream on one another, the period before as a line, and the watermark.
export class Steps extends Chart {
  show({ starts, batch, stream, before, step, watermark, from, to }) {
    Object.assign(this, { watermark, step, span: [from, to] });
    const total = batch.map((value, index) => value + stream[index]);
    if (this.plot && this.plot.series.length !== (before ? 4 : 3)) this.clear();
    this.before = Boolean(before);
    this.draw(before ? [starts, total, batch, before] : [starts, total, batch]);
  }

  options() {
    const of = colours();
    const bars = uPlot.paths.bars({ size: [0.86, 64], align: 1, gap: 0 });
    const bar = (fill) => ({ paths: bars, fill, stroke: fill, width: 0, points: { show: false } });
    const series = [{}, bar(of.stream), bar(of.batch)];
    if (this.before) series.push({ stroke: of.before, width: 1.5, dash: [5, 4], points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) });
    return {
      series,
      axes: axes(of, (value) => (Number.isInteger(value) ? short(value) : "")),
      padding: [18, 8, 0, 0],
      scales: {
        x: { time: true, range: () => this.span },
        y: { range: (_, __, most) => [0, Math.max(1, most * 1.08)] },
      },
      hooks: { drawClear: [(plot) => this.shade(plot)], draw: [(plot) => this.mark(plot)] },
    };
  }

  at(plot) {
    const { left, width } = plot.bbox;
    const at = plot.valToPos(this.watermark, "x", true);
    return Math.min(Math.max(at, left), left + width);
  }

  // Right of the watermark counts are provisional.
  shade(plot) {
    if (!this.watermark) return;
    const { ctx, bbox } = plot;
    const at = this.at(plot);
    ctx.save();
    ctx.fillStyle = colours().shade;
    ctx.fillRect(at, bbox.top, bbox.left + bbox.width - at, bbox.height);
    ctx.restore();
  }

  mark(plot) {
    if (!this.watermark || this.watermark < this.span[0] || this.watermark > this.span[1]) return;
    const { ctx, bbox } = plot;
    const [at, of, ratio] = [this.at(plot), colours(), devicePixelRatio];
    ctx.save();
    ctx.strokeStyle = of.watermark;
    ctx.lineWidth = 1.5 * ratio;
    ctx.setLineDash([4 * ratio, 3 * ratio]);
    ctx.beginPath();
    ctx.moveTo(at, bbox.top - 4 * ratio);
    ctx.lineTo(at, bbox.top + bbox.height);
    ctx.stroke();
    ctx.fillStyle = of.watermark;
    ctx.font = `600 ${11 * ratio}px ${getComputedStyle(document.body).fontFamily}`;
    const right = at > bbox.left + bbox.width / 2;
    ctx.textAlign = right ? "right" : "left";
    ctx.fillText("watermark", at + (right ? -5 : 5) * ratio, bbox.top - 5 * ratio);
    ctx.restore();
  }
}

// Events per second, of the last minutes.
export class Rates extends Chart {
  show(rows, span) {
    this.span = span;
    const column = (index) => rows.map((row) => row[index]);
    this.draw([column(0).map((time) => time / 1000), column(1), column(2), column(3)]);
  }

  options() {
    const of = colours();
    const line = (stroke, fill) => ({ stroke, fill, width: 1.5, points: { show: false } });
    return {
      series: [{}, line(of.batch, of["batch-faint"]), line(of.before), line(of.bad)],
      axes: axes(of),
      padding: [8, 8, 0, 0],
      scales: { x: { time: true, range: () => this.span }, y: { range: (_, __, most) => [0, Math.max(1, (most ?? 0) * 1.1)] } },
    };
  }
}
