// A plot of any setting against any metric, with one dot per job. Dots are links, so that they can be focused.
import { counted, h, metric, svg } from "../common/dom.js";
import { LOG_FROM } from "./coordinates.js";
import { formatOf } from "../common/format.js";

const [LEFT, RIGHT, TOP, BOTTOM] = [64, 20, 14, 46];
const DOT_SPACING = 13; // width of a dot and a gap, in pixels
const MAX_CHOSEN = 5; // labels of chosen values, which may be close to each other
const MAX_GROUP_WIDTH = 80; // maximum width of a group of dots at the same position, in pixels

const text = (
  value,
) => (typeof value === "number" ? String(Number(value.toPrecision(6))) : value === null ? "none" : String(value));

// Round numbers between two values; powers of ten for a logarithmic scale.
export function ticks(low, high, isLog, count) {
  if (isLog) {
    const powers = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      powers.push(...[1, 2, 5].map((digit) => Number(`${digit}e${power}`)));
    }
    const inside = powers.filter((value) => value >= low * 0.999 && value <= high * 1.001);
    return inside.length > count ? inside.filter((value) => String(value.toExponential()).startsWith("1e")) : inside;
  }
  const rough = (high - low) / count || 1;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = size * [1, 2, 5, 10].find((digit) => digit * size >= rough);
  const positions = [];
  for (let position = Math.ceil(low / step); position * step <= high + step * 1e-9; position++) {
    positions.push(Number((position * step).toPrecision(12)));
  }
  return positions;
}

// Positions of values on an axis, from 0 to 1, and its labels: numbers to scale, everything else evenly spaced. Few
// numbers that were chosen (isChosen) have a label each.
function axis(values, count, prefersLog = false, isChosen = false) {
  const isNumber = values.every((value) => typeof value === "number");
  if (!isNumber) {
    const names = [...new Set(values.map(text))].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    const at = (value) => (names.indexOf(text(value)) + 0.5) / names.length;
    return { at, ticks: names.map((name) => ({ at: at(name), value: name })), isNumber };
  }
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const isLog = low > 0 && high > low && (prefersLog || high / low >= LOG_FROM);
  const scale = isLog ? Math.log10 : (value) => value;
  const room = (scale(high) - scale(low)) * 0.06 || Math.abs(scale(high)) * 0.1 || 1;
  const [from, to] = [scale(low) - room, scale(high) + room];
  [low, high] = isLog ? [10 ** from, 10 ** to] : [from, to];
  const at = (value) => (scale(value) - from) / (to - from);
  const chosen = [...new Set(values)].sort((a, b) => a - b);
  const labelled = isChosen && chosen.length <= MAX_CHOSEN ? chosen : ticks(low, high, isLog, count);
  return { at, ticks: labelled.map((value) => ({ at: at(value), value })), isLog, isNumber };
}

// Spreads dots at the same position horizontally, so that each is visible.
function spreadOverlapping(centers, [left, right]) {
  const overlapping = Map.groupBy(
    centers.keys(),
    (index) => centers[index].map((coordinate) => Math.round(coordinate / 3)).join(),
  );
  const moved = [...centers];
  for (const group of overlapping.values()) {
    const step = Math.min(DOT_SPACING, MAX_GROUP_WIDTH / group.length);
    const first = Math.min(
      Math.max(centers[group[0]][0] - (step * (group.length - 1)) / 2, left),
      right - step * (group.length - 1),
    );
    if (group.length > 1) {
      group.forEach((index, position) => (moved[index] = [first + position * step, centers[index][1]]));
    }
  }
  return moved;
}

const colourOf = (index) => (index === null ? "var(--line-strong)" : `var(--series-${(index % 8) + 1})`);

export class Scatter {
  // onlight(id): called with the job or trial whose dot is under the pointer, or null. noun: "job" or "trial".
  constructor(element, { onlight, noun = "job", height = 340 }) {
    Object.assign(this, { onlight, noun, height });
    this.element = element;
    this.note = h("div", { class: "readout", hidden: true, "aria-hidden": true });
    this.dots = new Map();
    new ResizeObserver(() => this.draw()).observe(element);
  }

  // points: [{ id, label, href, x, y, index }]; index: position in the palette, null if muted. metric, setting: their
  // names. isLog: whether the setting has a logarithmic scale in any case. isChosen: whether its values were listed. A
  // point may have an interval of y: [low, high].
  show(content) {
    this.content = content;
    this.draw();
  }

  draw() {
    const width = this.element.clientWidth;
    if (!this.content || !width) return;
    const { points, setting, metric: name, word, isLog, isChosen } = this.content;
    const { height } = this;
    if (!points.length) {
      return this.element.replaceChildren(h("p", { class: "muted" }, `No ${this.noun} has both values yet.`));
    }
    const format = formatOf(name);
    const [x, y] = [
      axis(points.map((point) => point.x), Math.max(2, Math.floor(width / 110)), isLog, isChosen),
      axis(points.flatMap(({ y, interval }) => [y, ...(interval ?? [])]), 6),
    ];
    const [plotWidth, plotHeight] = [width - LEFT - RIGHT, height - TOP - BOTTOM];
    const toPixels = (point) => [LEFT + x.at(point.x) * plotWidth, TOP + (1 - y.at(point.y)) * plotHeight];
    const step = y.ticks.length > 1 ? Math.abs(y.ticks[1].value - y.ticks[0].value) : 1;
    const maxLabelLength = Math.max(1, Math.floor(plotWidth / x.ticks.length / 7)); // characters that fit below a tick
    const short = (
      value,
    ) => (String(value).length > maxLabelLength
      ? `${String(value).slice(0, Math.max(1, maxLabelLength - 1))}…`
      : String(value));
    const grid = [
      ...y.ticks.map((tick) =>
        svg("line", {
          x1: LEFT,
          x2: width - RIGHT,
          y1: TOP + (1 - tick.at) * plotHeight,
          y2: TOP + (1 - tick.at) * plotHeight,
        })
      ),
      ...x.ticks.map((tick) =>
        svg("line", { x1: LEFT + tick.at * plotWidth, x2: LEFT + tick.at * plotWidth, y1: TOP, y2: TOP + plotHeight })
      ),
    ];
    const labels = [
      ...y.ticks.map((tick) =>
        svg(
          "text",
          { x: LEFT - 8, y: TOP + (1 - tick.at) * plotHeight + 4, "text-anchor": "end" },
          format.tick(tick.value, y.isLog ? null : step),
        )
      ),
      ...x.ticks.map((tick) =>
        svg(
          "text",
          { x: LEFT + tick.at * plotWidth, y: height - BOTTOM + 18, "text-anchor": "middle" },
          svg("title", {}, String(tick.value)),
          x.isNumber ? String(tick.value) : short(tick.value),
        )
      ),
      svg(
        "text",
        { x: LEFT + plotWidth / 2, y: height - 6, "text-anchor": "middle", class: "axis" },
        `${setting}${x.isLog ? " (log scale)" : ""}`,
      ),
    ];
    const centers = spreadOverlapping(points.map(toPixels), [LEFT, width - RIGHT]);
    this.dots = new Map(
      points.map((point, index) => [point.id, this.dot(point, centers[index], { setting, name, word })]),
    );
    const whiskers = points.flatMap(({ interval, index }, position) => {
      if (!interval) return [];
      const [y1, y2] = interval.map((value) => toPixels({ ...points[position], y: value })[1]);
      const line = svg("line", { x1: centers[position][0], x2: centers[position][0], y1, y2, class: "whisker" });
      line.style.stroke = colourOf(index);
      return [line];
    });
    this.top = svg("g", { "pointer-events": "none", "aria-hidden": true });
    const focused = document.activeElement?.closest?.(".dot")?.dataset.job;
    this.image = svg(
      "svg",
      {
        width,
        height,
        role: "group",
        "aria-label": `${word} against ${setting}, ${counted(points.length, this.noun)}`,
      },
      svg("g", { class: "grid" }, grid),
      svg("g", { class: "words" }, labels),
      whiskers,
      [...this.dots.values()],
      this.top,
    );
    this.element.replaceChildren(this.image, this.note);
    if (focused) this.dots.get(focused)?.focus({ preventScroll: true });
    this.light(this.lit);
    return undefined;
  }

  dot(point, [left, top], { setting, name, word }) {
    const circle = svg("circle", { cx: left.toFixed(1), cy: top.toFixed(1), r: 6 });
    circle.style.fill = colourOf(point.index);
    const dot = svg("a", {
      href: point.href,
      "data-job": point.id,
      class: "dot",
      "aria-label": `${point.label}: ${setting} ${text(point.x)}, ${word} ${metric(name, point.y)}`,
    }, circle);
    const showNote = () => {
      this.note.replaceChildren(
        h("strong", {}, point.label),
        h("div", {}, `${setting}: ${text(point.x)}`),
        h("div", {}, `${word}: ${metric(name, point.y)}`),
      );
      this.note.hidden = false;
      const isRight = left > this.element.clientWidth / 2;
      this.note.style.left = isRight ? "auto" : `${left + 14}px`;
      this.note.style.right = isRight ? `${this.element.clientWidth - left + 14}px` : "auto";
      this.note.style.top = `${Math.max(0, top - 20)}px`;
      this.onlight(point.id);
    };
    const leave = () => {
      this.note.hidden = true;
      this.onlight(null);
    };
    for (const event of ["mouseenter", "focus"]) dot.addEventListener(event, showNote);
    for (const event of ["mouseleave", "blur"]) dot.addEventListener(event, leave);
    return dot;
  }

  light(id) {
    this.lit = id;
    for (const [job, dot] of this.dots) dot.classList.toggle("lit", job === id);
    // A copy is drawn on top: moving the dot itself would change the tab order.
    this.top?.replaceChildren(
      ...(this.dots.has(id) ? [svg("g", { class: "above" }, this.dots.get(id).firstChild.cloneNode())] : []),
    );
  }
}
