// Formats the values of a metric for a chart: short at the axis, and in full.
import { bytes, describe, metric } from "./dom.js";

const MAX_DECIMALS = 5; // maximum number of decimal places of a tick label on a linear axis
const MAX_DIGITS = 5; // maximum number of significant digits before K, M, B and T

const formats = new Map(); // created once for each number of digits: it is slow
function compact(value, digits) {
  if (!formats.has(digits)) {
    formats.set(digits, new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: digits }));
  }
  return formats.get(digits).format(value);
}

// The power of ten of a number's last digit that is not 0: -2 for 0.25, 1 for 250.
function lastDigit(number) {
  const [digits, power] = Number(number.toPrecision(10)).toExponential().split("e");
  return Number(power) - (digits.split(".")[1] ?? "").length;
}

// The exact value of a grid line. step: the distance between grid lines, or null on a logarithmic axis. maxDigits: see
// MAX_DIGITS.
function short(value, step, maxDigits = MAX_DIGITS) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const last = lastDigit(step || value);
  const first = Math.floor(Math.log10(size * (1 + 1e-12)));
  const digits = Math.min(Math.max(first - last + 1, 1), 16);
  if (size >= 1e4 && size < 1e15 && digits <= maxDigits) return compact(value, digits);
  if (size >= 1e15 || (size < 1e-3 && (!step || -last > MAX_DECIMALS))) {
    return Number(value.toPrecision(digits)).toExponential().replace("e-", "e−").replace("e+", "e");
  }
  const number = Number(value.toFixed(Math.min(Math.max(-last, 0), 15)));
  return size >= 1e4 ? number.toLocaleString("en", { maximumFractionDigits: 15 }) : number.toString();
}

function inBytes(value, step) {
  const power = value ? Math.min(Math.max(Math.floor(Math.log10(Math.abs(value) * (1 + 1e-12)) / 3), 0), 3) : 0;
  return `${short(value / 1000 ** power, step && step / 1000 ** power)} ${["B", "kB", "MB", "GB"][power]}`;
}

const UNITS = [
  [/_bytes$/, { tick: inBytes, value: (value) => bytes(value) }],
  [/(^|_)seconds$/, {
    tick: (value, step) => `${short(value, step, 0)} s`,
    value: (value) => `${Number(value.toPrecision(4))} s`,
  }],
];

// tick(value, step): the label of a grid line; step: the distance between grid lines, or null on a logarithmic axis.
export function formatOf(name) {
  const { percent } = describe(name);
  const value = (number) => metric(name, number);
  if (percent) return { percent, value, tick: (number, step) => `${short(100 * number, step && 100 * step)}%` };
  const [, unit] = UNITS.find(([pattern]) => pattern.test(name)) ?? [];
  return {
    percent,
    value,
    tick: short,
    ...unit,
    ...(unit && { value: (number) => (number === null || number === undefined ? "–" : unit.value(number)) }),
  };
}
