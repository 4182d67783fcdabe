// Prepares series for a chart: smoothing, a common x axis, and the ranges of the axes.

// Exponential moving average with bias correction; gaps are preserved.
export function smooth(values, weight) {
  if (!weight) return values;
  let sum = 0;
  let total = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = sum * weight + value * (1 - weight);
    total = total * weight + (1 - weight);
    return sum / total;
  });
}

const MAX_CELLS = 1_000_000;

// All series on the union of their x values. null is a gap, undefined an x value that a series does not have.
// Many long series with different x values would make a huge table: x values closer than a pixel are merged.
export function align(series) {
  const [first] = series;
  if (series.every((item) => item.x === first.x)) {
    return { x: [...first.x], columns: series.map((item) => [...item.y]) };
  }
  let xs = [...new Set(series.flatMap((item) => item.x))].sort((a, b) => a - b);
  const step = xs.length * series.length > MAX_CELLS ? (xs.at(-1) - xs[0]) / (MAX_CELLS / series.length) : 0;
  const snap = step ? (x) => Math.round(x / step) * step : (x) => x;
  if (step) xs = [...new Set(xs.map(snap))];
  const rows = new Map(xs.map((x, row) => [x, row]));
  const columns = series.map(({ x, y }) => {
    const column = Array(xs.length);
    x.forEach((value, index) => (column[rows.get(snap(value))] = y[index]));
    return column;
  });
  return { x: xs, columns };
}

// The range of the vertical axis, with a minimum height, so that rounding noise is not magnified.
export function yRange(low, high, percent) {
  if (low === null || high === null) return [0, 1];
  const minHeight = percent ? 0.01 : 0.02 * Math.max(Math.abs(low), Math.abs(high)) || 1;
  if (high - low < minHeight) [low, high] = [(low + high - minHeight) / 2, (low + high + minHeight) / 2];
  const room = 0.06 * (high - low);
  const isShare = percent && high <= 1.01;
  return [
    low >= 0 ? Math.max(low - room, -0.03 * high) : low - room,
    isShare ? Math.min(high + room, 1.03) : high + room,
  ];
}

const EPOCH_STEPS = [1, 2, 5].flatMap((step) => [0, 1, 2, 3, 4, 5, 6].map((power) => step * 10 ** power)).sort((a, b) =>
  a - b
);
const SECOND_STEPS = [
  0.01,
  0.02,
  0.05,
  0.1,
  0.2,
  0.5,
  1,
  2,
  5,
  10,
  20,
  30,
  60,
  120,
  300,
  600,
  1200,
  1800,
  3600,
  7200,
  14_400,
  21_600,
  43_200,
  86_400,
  172_800,
  864_000,
];
export const steps = (axis) => (axis === "seconds" ? SECOND_STEPS : EPOCH_STEPS);

// Ticks: the first epoch, and the multiples of a step that do not overlap with it.
export function ticks(axis, first, last, step) {
  const positions = [];
  for (let position = Math.ceil(first / step) * step; position <= last + step * 1e-6; position += step) {
    positions.push(Math.round(position * 1000) / 1000);
  }
  if (axis === "seconds" || positions[0] === first || !Number.isInteger(first)) return positions;
  return [first, ...positions.filter((position) => position - first >= 0.6 * step)];
}

// The label of a tick, in the largest unit that divides the step.
export function label(axis, value, step) {
  if (axis !== "seconds") return String(value);
  const [size, unit] = step < 60 ? [1, "s"] : step < 3600 ? [60, "min"] : [3600, "h"];
  return `${Number((value / size).toFixed(2))} ${unit}`;
}

// The x value under the pointer, for the readout.
export function pointerLabel(axis, value) {
  if (axis !== "seconds") return String(value);
  const number = (part) => Number(part.toPrecision(4)).toString();
  if (value < 120) return `${number(value)} s`;
  return value < 7200 ? `${number(value / 60)} min` : `${number(value / 3600)} h`;
}
