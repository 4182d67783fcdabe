// A chart of several series, drawn by uPlot. Zoom, hidden lines and settings survive new data.
/* global uPlot */
import { h, memory } from "../common/dom.js";
import { align } from "./align.js";
import { saveCsv, savePng } from "./export.js";
import { lineSample, seriesColor } from "./palette.js";
import { columns, options, xRange } from "./plot.js";
import { Readout, rowOf } from "./readout.js";

const HEIGHT = 250;

export class Chart {
  // id: the key of its stored settings. onlight(name): called when the pointer is near one of many lines.
  constructor(id, title, { onlight = () => {} } = {}) {
    this.id = id;
    this.title = title;
    this.display = {
      log: memory.get(`log.${id}`, false),
      hidden: new Set(memory.get(`hidden.${id}`, [])),
      zoom: { x: null, y: null },
      lit: null,
    };
    this.plot = h("div", {
      class: "plot",
      role: "img",
      tabindex: 0,
      "aria-keyshortcuts": "+ - 0 ArrowLeft ArrowRight",
    });
    this.plot.addEventListener("keydown", (event) => this.steer(event));
    this.legend = h("div", { class: "row series", role: "group", "aria-label": `Lines: ${title}` });
    this.keys = new Map();
    this.readout = new Readout(onlight);
    const tool = (name, description, onclick, extra = {}) =>
      h("button", {
        type: "button",
        class: "slim quiet",
        title: description,
        "aria-label": `${name}: ${title}`,
        onclick,
        ...extra,
      }, name);
    const log = tool("Log", "Logarithmic scale", null, { "aria-pressed": String(this.display.log) });
    log.addEventListener("click", () => {
      this.display.log = !this.display.log;
      this.display.zoom.y = null;
      log.setAttribute("aria-pressed", String(this.display.log));
      memory.set(`log.${id}`, this.display.log);
      this.draw();
    });
    const tools = [
      log,
      tool("Reset", "Reset the zoom", () => this.reset()),
      tool("PNG", "Download as PNG", () => savePng(title, this.content, this.display)),
      tool("CSV", "Download as CSV", () => saveCsv(title, this.content)),
    ];
    this.element = h(
      "figure",
      { class: "card chart" },
      h("figcaption", { class: "head" }, h("h3", {}, title), h("div", { class: "row tools" }, tools)),
      this.legend,
      this.plot,
    );
    this.watch();
  }

  // Charts outside of the viewport are drawn when they enter it.
  watch() {
    this.visible = false;
    new IntersectionObserver(
      ([entry]) => {
        this.visible = entry.isIntersecting;
        if (this.visible && this.isPending) this.draw();
      },
      { rootMargin: "300px" },
    ).observe(this.plot);
    new ResizeObserver(() => {
      if (this.drawing && this.plot.clientWidth) this.drawing.setSize({ width: this.plot.clientWidth, height: HEIGHT });
    }).observe(this.plot);
    addEventListener("themechange", () => this.drawing?.redraw(false));
  }

  // content: {
  //   series: [{ name, label, x, y, index, sparse, low, high }]  index: position in the palette; sparse: a line spans
  //   the gaps between values; low, high: the band around y, if y is a mean
  //   axis: "epoch" or "seconds", range: [first, last], smoothing: 0..1, format: see ../common/format.js
  //   marks: [{ x, text }], bands: [{ from, to, color }]
  //   many: lines are muted, except for the one named `best` and the one under the pointer }
  show(content) {
    if (this.content && this.content.axis !== content.axis) this.display.zoom = { x: null, y: null };
    this.content = content;
    this.drawLegend();
    this.plot.setAttribute("aria-label", this.summary());
    this.draw();
  }

  // The legend: a button for each line, which hides or shows it. With many lines, only the best and the highlighted
  // one.
  drawLegend() {
    const { series, many, best } = this.content;
    if (many) return this.drawKeys(best, this.display.lit);
    for (const { name, label, index } of series) {
      if (this.keys.has(name)) {
        this.keys.get(name).firstChild.replaceWith(lineSample(index)); // its colour may have changed
        continue;
      }
      const key = h(
        "button",
        {
          type: "button",
          class: "slim quiet",
          "aria-pressed": String(!this.display.hidden.has(name)),
          onclick: () => this.toggle(name),
        },
        lineSample(index),
        h("span", {}, label),
        h("span", { class: "muted last", hidden: true }),
      );
      this.keys.set(name, key);
    }
    // Lines may cover each other, so the legend shows the last value of each.
    for (const { name, y } of series) {
      const last = this.keys.get(name).lastChild;
      last.hidden = series.length < 3;
      last.textContent = last.hidden ? "" : this.content.format.value(y.findLast((value) => value !== null));
    }
    const keys = series.map(({ name }) => this.keys.get(name)); // new lines may belong between existing ones
    if (keys.some((key, position) => key !== this.legend.children[position])) this.legend.replaceChildren(...keys);
    return undefined;
  }

  drawKeys(best, lit) {
    const label = (name) => this.content.series.find((item) => item.name === name)?.label;
    const key = (index, text) => h("span", { class: "key" }, lineSample(index), h("span", {}, text));
    this.legend.replaceChildren(
      label(best) ? key(1, `best: ${label(best)}`) : "",
      label(lit) && lit !== best ? key(0, label(lit)) : "",
    );
  }

  // Highlights one of many lines.
  light(name) {
    if (name === this.display.lit) return;
    this.display.lit = name;
    if (!this.content?.many) return;
    this.drawKeys(this.content.best, name);
    queueMicrotask(() => this.drawing?.redraw(false)); // uPlot ignores a redraw while it draws or handles the pointer
  }

  draw() {
    if (!this.content) return;
    this.isPending = !this.visible;
    if (this.visible) this.frame ??= requestAnimationFrame(() => this.paint());
  }

  paint() {
    this.frame = null;
    this.painted = this.content; // what is on the canvas; this.content can be newer until the next frame
    const { series, smoothing, axis, many } = this.content;
    const aligned = align(series);
    const data = [aligned.x, ...columns(aligned, smoothing)];
    // A changed set of lines needs a new plot; changed values update the existing one.
    const shape = JSON.stringify([
      series.map((item) => [item.name, item.index]),
      Boolean(smoothing),
      axis,
      Boolean(many),
      this.display.log,
    ]);
    if (shape !== this.shape) {
      this.drawing?.destroy();
      this.drawing = new uPlot(this.options(), data, this.plot);
      this.readout.mount(this.drawing);
      this.shape = shape;
    } else {
      this.drawing.setData(data);
    }
  }

  options() {
    const uplotOptions = options(
      this.content,
      this.display,
      { width: this.plot.clientWidth, height: HEIGHT },
      () => this.painted,
    );
    const { smoothing, many } = this.content;
    const item = (column) => this.painted.series[Math.floor((column - 1) / (smoothing ? 2 : 1))];
    uplotOptions.hooks.setSelect = [(plot) => this.zoom(plot)];
    uplotOptions.hooks.setCursor = [(plot) => this.readout.show(plot, this.painted)];
    uplotOptions.cursor = {
      y: false,
      drag: { x: true, y: true, uni: 30, dist: 5, setScale: false },
      bind: { dblclick: () => () => this.reset() },
      dataIdx: (plot, column, index) => (column ? rowOf(plot, column, index, this.painted.axis) : index),
      points: {
        size: 9,
        width: 0,
        fill: (_plot, column) => seriesColor(item(column).index),
        show: (_plot, column) => !many && (!smoothing || column % 2 === 0) && document.createElement("div"),
      },
    };
    return uplotOptions;
  }

  // Zooms to the dragged selection: a range of epochs, of values, or both.
  zoom(plot) {
    const { left, top, width, height } = plot.select;
    if (width < 3 || height < 3) return;
    const span = {
      x: [left, left + width].map((pixel) => plot.posToVal(pixel, "x")),
      y: [top + height, top].map((pixel) => plot.posToVal(pixel, "y")),
    };
    if (width < plot.over.clientWidth - 1) this.display.zoom.x = span.x;
    if (height < plot.over.clientHeight - 1) this.display.zoom.y = span.y;
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.draw();
  }

  toggle(name) {
    const { hidden } = this.display;
    if (!hidden.delete(name)) hidden.add(name);
    this.keys.get(name).setAttribute("aria-pressed", String(!hidden.has(name)));
    memory.set(`hidden.${this.id}`, [...hidden]);
    const { series, smoothing } = this.painted ?? this.content;
    const index = series.findIndex((item) => item.name === name);
    if (index < 0) return; // a line that is not painted yet: the next frame applies the setting
    const lines = smoothing ? 2 : 1;
    const first = lines * index + 1;
    for (let line = first; line < first + lines; line++) this.drawing?.setSeries(line, { show: !hidden.has(name) });
  }

  // Zooming and panning with the keyboard.
  steer(event) {
    const zoom = { "+": 0.5, "=": 0.5, "-": 2 }[event.key];
    const step = { ArrowLeft: -0.25, ArrowRight: 0.25 }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !this.content || !(zoom || step || event.key === "0")) return;
    event.preventDefault();
    if (event.key === "0") return this.reset();
    const [first, last] = xRange(this.content);
    const [from, to] = this.display.zoom.x ?? [first, last];
    const width = Math.min((to - from) * (zoom ?? 1), last - first);
    const middle = (from + to) / 2 + (step ?? 0) * (to - from);
    const start = Math.min(Math.max(middle - width / 2, first), last - width);
    this.display.zoom.x = width >= last - first ? null : [start, start + width];
    this.draw();
    return undefined;
  }

  reset() {
    this.display.zoom = { x: null, y: null };
    this.draw();
  }

  summary() {
    const { series, axis, many, best, format } = this.content;
    const summarized = many ? series.filter((item) => item.name === best) : series;
    const values = summarized.map((item) =>
      `${item.label} ${format.value(item.y.findLast((value) => value !== null))}`
    );
    return `${this.title} by ${axis}: ${many ? `${series.length} jobs, best ` : ""}${values.join(", ")}`;
  }
}
