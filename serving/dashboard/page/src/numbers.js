// Numbers and times as text. Counts are 64-bit: above 2^53 they must not pass through a double.

// Texts and numbers, each as a whole: the digits behind a point are no integer of their own.
const TOKENS = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g;
const LONG = /^-?\d{16,}$/;

// Long integers become text before JSON.parse can round them; whole() takes both.
export function parse(text) {
  return JSON.parse(text.replace(TOKENS, (token) => (LONG.test(token) ? `"${token}"` : token)));
}

export function whole(value) {
  return value === null || value === undefined ? null : BigInt(value);
}

export function count(value) {
  const exact = whole(value);
  return exact === null ? "–" : exact.toLocaleString("en-US");
}

// A rate, or another number that is no count.
export function rate(value) {
  if (value === null || value === undefined) return "–";
  const digits = value === 0 || Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString("en-US", { maximumFractionDigits: digits });
}

export function millis(value) {
  if (value === null || value === undefined) return "–";
  return value >= 1000 ? `${rate(value / 1000)} s` : `${rate(value)} ms`;
}

export function ago(seconds) {
  if (seconds < 0) return "ahead";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

// Seconds since 1970 of an RFC 3339 time.
export function seconds(time) {
  return Date.parse(time) / 1000;
}

const pad = (number) => String(number).padStart(2, "0");

export function clock(time) {
  const at = new Date(time);
  return `${pad(at.getUTCHours())}:${pad(at.getUTCMinutes())}:${pad(at.getUTCSeconds())}`;
}

// A minute, with its date when it is not that of `today`.
export function minute(time, today) {
  const at = new Date(time);
  const date = at.toISOString().slice(0, 10);
  const hour = `${pad(at.getUTCHours())}:${pad(at.getUTCMinutes())}`;
  return date === new Date(today).toISOString().slice(0, 10) ? hour : `${date} ${hour}`;
}

export function bytesless(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

// How much more or less, in per cent; null when nothing was there before.
export function change(now, before) {
  const [a, b] = [whole(now), whole(before)];
  if (b === 0n) return null;
  const tenths = Number(((a - b) * 1000n) / b) / 10;
  return `${tenths > 0 ? "+" : tenths < 0 ? "−" : "±"}${Math.abs(tenths).toLocaleString("en-US")} %`;
}
