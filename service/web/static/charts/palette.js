// Colours and dashes of lines, from the tokens of app.css.
import { describe, svg } from "../common/dom.js";

const tokenValues = new Map(); // a cache: reading computed styles is slow, and charts need them often
addEventListener("themechange", () => tokenValues.clear());
export function token(name) {
  if (!tokenValues.has(name)) {
    tokenValues.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  }
  return tokenValues.get(name);
}

const DASHES = [[], [6, 4], [2, 3], [6, 3, 2, 3]];
export const seriesColor = (index) => token(`series-${(index % 8) + 1}`);
export const seriesDash = (index) => DASHES[Math.floor(index / 8) % DASHES.length];

// Palette indices for the lines of one chart. Each metric has a preferred index, as in downloaded plots;
// if it is in use, the next free one is used. The layers of a network start with the index of the first layer.
export function seriesIndexes(names) {
  const used = new Set();
  return names.map((name, position) => {
    const preferred = name.includes("/") ? (position + 5) % 8 : describe(name).series - 1;
    const index = [preferred, ...Array(8 * DASHES.length).keys()].find((candidate) => !used.has(candidate)) ??
      preferred;
    used.add(index);
    return index;
  });
}

// A short line in the style of a series, for a legend.
export function lineSample(index) {
  const line = svg("line", {
    x1: 0,
    x2: 20,
    y1: 4,
    y2: 4,
    "stroke-width": 2,
    "stroke-dasharray": seriesDash(index).join(" ") || "none",
  });
  line.style.stroke = `var(--series-${(index % 8) + 1})`;
  return svg("svg", { width: 20, height: 8, "aria-hidden": true }, line);
}
