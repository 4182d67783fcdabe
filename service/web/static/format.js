// Formats the values of a metric for a chart: short at the axis, and in full.
import { bytes, describe, duration, metric } from "./dom.js";

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });

function short(value, step) {
  const size = Math.abs(value);
  if (size >= 1e4 && size < 1e15) return compact.format(value);
  if (size >= 1e15 || (size > 0 && size < 1e-3)) return value.toExponential(Math.min(2, Math.max(0, Math.floor(Math.log10(size)) - Math.floor(Math.log10(step || size))))).replace("e-", "e−").replace("e+", "e");
  return Number(value.toFixed(Math.max(0, Math.min(6, Math.ceil(-Math.log10(step || 1) + 1e-9))))).toString();
}

const UNITS = [
  [/_bytes$/, { tick: (value) => bytes(value), value: (value) => bytes(value) }],
  [/(^|_)seconds$/, { tick: (value) => (value < 90 ? `${Number(value.toPrecision(3))} s` : duration(value)), value: (value) => `${Number(value.toPrecision(4))} s` }],
];

export function formatOf(name) {
  const { percent } = describe(name);
  const value = (number) => metric(name, number);
  if (percent) return { percent, value, tick: (number, step) => `${short(100 * number, 100 * step)}%` };
  const [, unit] = UNITS.find(([pattern]) => pattern.test(name)) ?? [];
  return { percent, value, tick: short, ...unit, ...(unit && { value: (number) => (number === null || number === undefined ? "–" : unit.value(number)) }) };
}
