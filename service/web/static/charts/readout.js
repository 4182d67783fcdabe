// A box with the value of every line at the epoch under the pointer. On touch screens, a tap opens it.
import { h } from "../common/dom.js";
import { pointerLabel } from "./align.js";
import { lineSample } from "./palette.js";

const MAX_DISTANCE_PX = 24; // maximum distance between a value and the pointer, for lines with different x values
const MAX_LINES = 12;

// The row of a line's value nearest to the pointer; null if there is none within reach.
export function rowOf(plot, column, index, axis) {
  const values = plot.data[column];
  const hasValue = (row) => values[row] !== undefined && values[row] !== null;
  if (index === null || index === undefined) return null;
  if (hasValue(index)) return index;
  if (axis !== "seconds") return null;
  const distance = (row) => Math.abs(plot.valToPos(plot.data[0][row], "x") - plot.valToPos(plot.data[0][index], "x"));
  for (let offset = 1; offset < values.length; offset++) {
    const [before, after] = [index - offset, index + offset].map((
      row,
    ) => (row >= 0 && row < values.length && distance(row) <= MAX_DISTANCE_PX ? row : null));
    if (before === null && after === null) return null;
    for (const row of [before, after]) if (row !== null && hasValue(row)) return row;
  }
  return null;
}

export class Readout {
  constructor(onnear) {
    this.onnear = onnear; // called with the name of the line near the pointer, or null
    this.near = null;
    this.element = h("div", { class: "readout", "aria-hidden": true, hidden: true });
  }

  mount(plot) {
    plot.over.append(this.element);
  }

  show(plot, content) {
    const { left, top, idx: index } = plot.cursor;
    const lines = left < 0 || index === null || index === undefined ? [] : this.linesAt(plot, content, index, top);
    const shownLines = content.many
      ? lines.filter(({ item, distance }) => item.name === content.best || distance <= MAX_DISTANCE_PX).slice(0, 3)
      : lines.slice(0, MAX_LINES);
    if (content.many) this.reportNear(lines.find(({ distance }) => distance <= MAX_DISTANCE_PX)?.item.name ?? null);
    this.element.hidden = shownLines.length === 0;
    if (this.element.hidden) return;
    const label = pointerLabel(content.axis, plot.data[0][index]);
    this.element.replaceChildren(
      h("strong", {}, content.axis === "seconds" ? label : `epoch ${label}`),
      ...shownLines.map(({ item, value, raw }) =>
        h(
          "div",
          {},
          content.many ? null : lineSample(item.index),
          h("span", { class: "name" }, item.label),
          h(
            "span",
            { class: "number" },
            content.format.value(value),
            raw === undefined ? null : h("span", { class: "muted" }, ` (${content.format.value(raw)})`),
          ),
        )
      ),
      lines.length > shownLines.length && !content.many
        ? h("span", { class: "muted" }, `and ${lines.length - shownLines.length} more`)
        : "",
    );
    const isRight = left > plot.over.clientWidth / 2;
    const line = plot.valToPos(plot.data[0][index], "x");
    this.element.style.left = isRight ? "auto" : `${Math.max(0, line) + 12}px`;
    this.element.style.right = isRight ? `${Math.max(0, plot.over.clientWidth - line) + 12}px` : "auto";
  }

  // Only changes are reported: a redrawn chart must not reset a line that is highlighted elsewhere.
  reportNear(near) {
    if (near === this.near) return;
    this.near = near;
    this.onnear(near);
  }

  // The lines with a value at the pointer: sorted by distance if there are many, otherwise in the legend's order.
  linesAt(plot, content, index, top) {
    const { series, smoothing, axis, many } = content;
    const rows = series.flatMap((item, seriesIndex) => {
      const column = smoothing ? 2 * seriesIndex + 2 : seriesIndex + 1;
      const row = plot.series[column].show ? rowOf(plot, column, index, axis) : null;
      if (row === null) return [];
      const value = plot.data[column][row];
      const distance = Math.hypot(
        plot.valToPos(value, "y") - top,
        plot.valToPos(plot.data[0][row], "x") - plot.valToPos(plot.data[0][index], "x"),
      );
      return [{ item, value, raw: smoothing ? plot.data[column - 1][row] : undefined, distance }];
    });
    return many ? rows.sort((a, b) => a.distance - b.distance) : rows;
  }
}
