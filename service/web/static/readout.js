// A box with the value of every line at the epoch under the pointer. On touch screens, a tap opens it.
import { h } from "./dom.js";
import { place } from "./align.js";
import { lineSample } from "./palette.js";

const NEAR = 24; // maximum distance of a value from the pointer in pixels, if lines have different x values
const MOST = 12;

// The row of a line's value at the pointer; null if it has none there.
export function rowOf(plot, column, index, axis) {
  const values = plot.data[column];
  const isThere = (row) => values[row] !== undefined && values[row] !== null;
  if (index === null || index === undefined) return null;
  if (isThere(index)) return index;
  if (axis !== "seconds") return null;
  const distance = (row) => Math.abs(plot.valToPos(plot.data[0][row], "x") - plot.valToPos(plot.data[0][index], "x"));
  for (let away = 1; away < values.length; away++) {
    const [before, after] = [index - away, index + away].map((row) => (row >= 0 && row < values.length && distance(row) <= NEAR ? row : null));
    if (before === null && after === null) return null;
    for (const row of [before, after]) if (row !== null && isThere(row)) return row;
  }
  return null;
}

export class Readout {
  constructor(onnear) {
    this.onnear = onnear; // called with the one of many lines that is under the pointer
    this.near = null;
    this.element = h("div", { class: "readout", "aria-hidden": true, hidden: true });
  }

  mount(plot) {
    plot.over.append(this.element);
  }

  show(plot, content) {
    const { left, top, idx: index } = plot.cursor;
    const found = left < 0 || index === null || index === undefined ? [] : this.found(plot, content, index, top);
    const shown = content.many ? found.filter(({ item, off }) => item.name === content.best || off <= NEAR).slice(0, 3) : found.slice(0, MOST);
    if (content.many) this.tell(found.find(({ off }) => off <= NEAR)?.item.name ?? null);
    this.element.hidden = shown.length === 0;
    if (this.element.hidden) return;
    const at = place(content.axis, plot.data[0][index]);
    this.element.replaceChildren(
      h("strong", {}, content.axis === "seconds" ? at : `epoch ${at}`),
      ...shown.map(({ item, value, raw }) =>
        h("div", {}, content.many ? null : lineSample(item.index), h("span", { class: "name" }, item.label), h("span", { class: "number" }, content.format.value(value), raw === undefined ? null : h("span", { class: "muted" }, ` (${content.format.value(raw)})`))),
      ),
      found.length > shown.length && !content.many ? h("span", { class: "muted" }, `and ${found.length - shown.length} more`) : "",
    );
    const isRight = left > plot.over.clientWidth / 2;
    const line = plot.valToPos(plot.data[0][index], "x");
    this.element.style.left = isRight ? "auto" : `${Math.max(0, line) + 12}px`;
    this.element.style.right = isRight ? `${Math.max(0, plot.over.clientWidth - line) + 12}px` : "auto";
  }

  // Only changes are reported: a redrawn chart must not reset a line that is highlighted elsewhere.
  tell(near) {
    if (near === this.near) return;
    this.near = near;
    this.onnear(near);
  }

  // The lines that have a value here: many by distance to the pointer, otherwise in the legend's order.
  found(plot, content, index, top) {
    const { series, smoothing, axis, many } = content;
    const rows = series.flatMap((item, at) => {
      const column = smoothing ? 2 * at + 2 : at + 1;
      const row = plot.series[column].show ? rowOf(plot, column, index, axis) : null;
      if (row === null) return [];
      const value = plot.data[column][row];
      const off = Math.hypot(plot.valToPos(value, "y") - top, plot.valToPos(plot.data[0][row], "x") - plot.valToPos(plot.data[0][index], "x"));
      return [{ item, value, raw: smoothing ? plot.data[column - 1][row] : undefined, off }];
    });
    return many ? rows.sort((a, b) => a.off - b.off) : rows;
  }
}
