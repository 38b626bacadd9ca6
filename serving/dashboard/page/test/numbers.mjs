// Numbers of the API as the page reads and writes them: node --test test/numbers.mjs
import assert from "node:assert/strict";
import { test } from "node:test";
import { change, count, parse, rate } from "../src/numbers.js";

test("long integers are not rounded", () => {
  const { most, least, list } = parse('{"most":18446744073709551615,"least":-1234567890123456789,"list":[9007199254740993]}');
  assert.equal(count(most), "18,446,744,073,709,551,615");
  assert.equal(count(least), "-1,234,567,890,123,456,789");
  assert.equal(count(list[0]), "9,007,199,254,740,993");
});

test("other numbers stay numbers, however many digits they have behind the point", () => {
  const text = '{"a":0.6933333333333334,"b":98.03921568627451,"c":-0.01694915254237288,"d":1.7976931348623157e308,"e":12,"f":[1e-16,0]}';
  assert.deepEqual(parse(text), JSON.parse(text));
  for (let n = 1; n < 2000; n += 1) assert.equal(parse(JSON.stringify({ rate: n / 59.0007 })).rate, n / 59.0007);
});

test("texts stay as they are", () => {
  const text = JSON.stringify({ id: '12345678901234567890', title: 'a "12345678901234567890" \\" <b>', reason: "at 1234567890123456.5" });
  assert.deepEqual(parse(text), JSON.parse(text));
});

test("numbers are shown exactly, and rates short", () => {
  assert.deepEqual([count(0), count(null), count(1234567)], ["0", "–", "1,234,567"]);
  assert.deepEqual([rate(0), rate(0.123), rate(12.34), rate(1234.5), rate(null)], ["0", "0.12", "12.3", "1,235", "–"]);
  assert.deepEqual([change(150, 100), change("18446744073709551615", "18446744073709551615"), change(1, 0)], ["+50 %", "±0 %", null]);
});
