// One chart of some series. Plotly draws; zoom, hidden series and settings outlive new data.
import { $, h, metric, memory, words } from "./dom.js";

let library = null;

// 5 MB, and only where something is drawn: the page is there before it.
function plotly() {
  library ??= new Promise((resolve, reject) => {
    const script = h("script", { src: $("meta[name=plotly]").content });
    script.addEventListener("load", () => resolve(globalThis.Plotly));
    script.addEventListener("error", () => reject(new Error("the chart library does not load")));
    document.head.append(script);
  });
  return library;
}

const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
export const seriesColor = (index) => token(`series-${(index % 8) + 1}`);
const DASHES = ["solid", "6px,4px", "2px,3px", "6px,3px,2px,3px"];
export const seriesDash = (index) => DASHES[Math.floor(index / 8) % DASHES.length];

// The line of a series as the legend shows it.
function sample(index) {
  const [picture, line] = ["svg", "line"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
  for (const [name, value] of Object.entries({ width: 20, height: 8, "aria-hidden": true })) picture.setAttribute(name, value);
  for (const [name, value] of Object.entries({ x1: 0, x2: 20, y1: 4, y2: 4, "stroke-width": 2, "stroke-dasharray": seriesDash(index).replace("solid", "none") })) line.setAttribute(name, value);
  line.style.stroke = `var(--series-${(index % 8) + 1})`;
  picture.append(line);
  return picture;
}

// Exponential moving average that does not begin at zero; gaps stay gaps.
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

// Epochs are whole numbers, also where there are few.
function ticks(series, axis) {
  if (axis === "seconds") return { ticksuffix: " s" };
  const last = Math.max(0, ...series.map((item) => item.x.at(-1) ?? 0));
  return { tickformat: ",d", ...(last <= 10 ? { dtick: 1 } : {}) };
}

export class Chart {
  // series: [{ name, label, x, y, index }]; marks: [{ x, text }]; bands: [{ from, to, text }]
  constructor(title) {
    this.title = title;
    this.plot = h("div", { class: "plot", role: "img", tabindex: 0, "aria-keyshortcuts": "+ - 0 ArrowLeft ArrowRight" });
    this.plot.addEventListener("keydown", (event) => this.steer(event));
    this.legend = h("div", { class: "row series", role: "group", "aria-label": `Lines: ${words(title)}` });
    this.keys = new Map();
    this.scale = memory.get(`log.${title}`, false);
    this.hidden = new Set(memory.get(`hidden.${title}`, []));
    const tool = (name, what, onclick, more = {}) => h("button", { type: "button", class: "slim quiet", title: what, "aria-label": `${name}: ${words(title)}`, onclick, ...more }, name);
    const log = tool("Log", "Logarithmic scale", null, { "aria-pressed": String(this.scale) });
    log.addEventListener("click", () => {
      this.scale = !this.scale;
      log.setAttribute("aria-pressed", String(this.scale));
      memory.set(`log.${title}`, this.scale);
      this.draw();
    });
    const tools = [
      log,
      tool("Reset", "Show everything again", () => this.reset()),
      tool("PNG", "Download as a picture", () => this.png()),
      tool("CSV", "Download the numbers", () => this.csv()),
    ];
    this.element = h("figure", { class: "card chart" }, h("figcaption", { class: "head" }, h("h3", {}, words(title)), h("div", { class: "row tools" }, tools)), this.legend, this.plot);
    this.revision = 0;
    addEventListener("themechange", () => this.draw());
  }

  show(content) {
    this.content = content;
    this.list();
    this.plot.setAttribute("aria-label", this.summary());
    this.draw();
  }

  // One button a line: it hides the line and shows it.
  list() {
    for (const { name, label, index } of this.content.series) {
      if (this.keys.has(name)) continue;
      const key = h("button", { type: "button", class: "slim quiet", "aria-pressed": String(!this.hidden.has(name)), onclick: () => this.toggle(name) }, sample(index), label);
      this.keys.set(name, key);
      this.legend.append(key);
    }
  }

  // Only what is on the screen is drawn; what is not is drawn when it comes there.
  draw() {
    if (!this.content) return;
    this.seen ??= new IntersectionObserver(
      ([entry]) => {
        this.visible = entry.isIntersecting;
        if (this.visible && this.waits) this.draw();
      },
      { rootMargin: "300px" },
    );
    if (this.visible === undefined) {
      this.visible = false;
      this.seen.observe(this.plot);
    }
    this.waits = !this.visible;
    if (this.visible) this.later ??= requestAnimationFrame(() => this.paint());
  }

  async paint() {
    this.later = null;
    const Plotly = await plotly();
    const { series, smoothing, axis, marks = [], bands = [] } = this.content;
    const traces = [];
    for (const item of series) {
      const visible = !this.hidden.has(item.name);
      const line = { color: seriesColor(item.index), width: 2, dash: seriesDash(item.index), shape: "linear" };
      const common = { x: item.x, type: "scatter", name: item.label, visible };
      const few = item.y.filter((value) => value !== null).length < 40;
      const mode = few ? "lines+markers" : "lines";
      const marker = { size: 5, color: line.color };
      if (smoothing) traces.push({ ...common, y: item.y, mode: "lines", opacity: 0.28, line: { ...line, width: 1 }, hoverinfo: "skip", connectgaps: true });
      traces.push({ ...common, y: smooth(item.y, smoothing), mode, line, marker, connectgaps: true, hovertemplate: `%{y:.4~g}<extra>%{fullData.name}</extra>` });
    }
    const [ink, muted, grid, card] = ["ink", "muted", "line", "card"].map(token);
    const lines = { gridcolor: grid, linecolor: grid, zerolinecolor: grid, tickcolor: grid, tickfont: { color: muted } };
    const layout = {
      uirevision: `${axis}${this.scale}${this.revision}`,
      height: 270,
      margin: { l: 52, r: 14, t: 8, b: 28 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: token("sans"), size: 12, color: ink },
      hovermode: "x unified",
      hoverlabel: { bgcolor: card, bordercolor: grid, font: { color: ink } },
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      showlegend: false,
      xaxis: { ...lines, ...ticks(series, axis) },
      yaxis: { ...lines, type: this.scale ? "log" : "linear", automargin: true, exponentformat: "power" },
      shapes: [
        ...bands.map(({ from, to, color }) => ({ type: "rect", xref: "x", yref: "paper", x0: from, x1: to, y0: 0, y1: 1, fillcolor: token(color), opacity: 0.5, layer: "below", line: { width: 0 } })),
        ...marks.map(({ x }) => ({ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, line: { color: muted, width: 1, dash: "dot" } })),
      ],
      annotations: marks.map(({ x, text }) => ({ x, yref: "paper", y: 1, text, showarrow: false, font: { size: 10, color: muted }, xanchor: "left", yanchor: "top", xshift: 3 })),
    };
    await Plotly.react(this.plot, traces, layout, { displayModeBar: false, responsive: true, displaylogo: false, doubleClick: "reset" });
    this.plot.dataset.points = String(Math.max(0, ...series.map((item) => item.y.filter((value) => value !== null).length)));
  }

  toggle(name) {
    if (!this.hidden.delete(name)) this.hidden.add(name);
    this.keys.get(name).setAttribute("aria-pressed", String(!this.hidden.has(name)));
    memory.set(`hidden.${this.title}`, [...this.hidden]);
    this.draw();
  }

  // What the pointer does by dragging.
  async steer(event) {
    const zoom = { "+": 0.5, "=": 0.5, "-": 2 }[event.key];
    const step = { ArrowLeft: -0.25, ArrowRight: 0.25 }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !this.plot.layout || !(zoom || step || event.key === "0")) return;
    event.preventDefault();
    if (event.key === "0") return this.reset();
    const Plotly = await plotly();
    const [from, to] = this.plot.layout.xaxis.range;
    const [middle, half] = [(from + to) / 2 + (step ?? 0) * (to - from), ((to - from) / 2) * (zoom ?? 1)];
    await Plotly.relayout(this.plot, { "xaxis.range": [middle - half, middle + half] });
  }

  summary() {
    const last = this.content.series.map((item) => {
      const known = item.y.findLast((value) => value !== null);
      return `${item.label} ${metric(item.name, known)}`;
    });
    return `${words(this.title)} by ${this.content.axis}: ${last.join(", ")}`;
  }

  reset() {
    this.revision += 1;
    this.draw();
  }

  async png() {
    const Plotly = await plotly();
    await Plotly.downloadImage(this.plot, { format: "png", width: 1200, height: 700, scale: 2, filename: `tapeline-${this.title}`.replaceAll(/[^\w-]+/g, "-") });
  }

  csv() {
    const { series, axis } = this.content;
    const places = [...new Set(series.flatMap((item) => item.x))].sort((a, b) => a - b);
    const columns = series.map((item) => new Map(item.x.map((x, index) => [x, item.y[index]])));
    const cell = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const lines = [[axis, ...series.map((item) => cell(item.label))], ...places.map((x) => [x, ...columns.map((column) => column.get(x) ?? "")])];
    const address = URL.createObjectURL(new Blob([lines.map((line) => `${line.join(",")}\n`).join("")], { type: "text/csv" }));
    h("a", { href: address, download: `tapeline-${this.title}.csv`.replaceAll(/[^\w.-]+/g, "-") }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  }
}
