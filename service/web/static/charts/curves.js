// The charts of one job: which metrics share a chart, and the settings of all charts.
import { $, describe, h, memory, throttle } from "../common/dom.js";
import { Chart } from "./chart.js";
import { formatOf } from "../common/format.js";
import { Metrics } from "./metrics.js";
import { seriesIndexes } from "./palette.js";

// The chart of a metric: its title, and whether it is always open. The metrics of single layers have one of their own.
export function groupOf(name) {
  const { chart, place, rank } = describe(name);
  const isOfLayer = name.includes("/");
  const title = isOfLayer ? `${chart} by layer` : chart;
  ranks.set(title, rank + (isOfLayer ? 0.5 : 0));
  return { title, isOpen: place === "main" && !isOfLayer };
}

const ranks = new Map(); // of the titles of charts
const inOrder = (a, b) => ranks.get(a) - ranks.get(b) || a.localeCompare(b, "en");
export const byGroup = (a, b) => inOrder(groupOf(a).title, groupOf(b).title) || a.localeCompare(b, "en");

// Inserts a chart at the position it has after a reload, however late its metrics arrived.
function insert(charts, key, parent, order) {
  const following = [...charts].filter(([other, { element }]) =>
    element.parentElement === parent && order(other, key) > 0
  );
  parent.insertBefore(charts.get(key).element, following.sort(([a], [b]) => order(a, b))[0]?.[1].element ?? null);
}
export const insertMetric = (charts, metric, parent) => insert(charts, metric, parent, byGroup);

export class Settings {
  constructor(element, onchange) {
    this.values = { axis: memory.get("axis", "epoch"), smoothing: memory.get("smoothing", 0) };
    const number = h("output", { class: "small muted" });
    const slider = h("input", { type: "range", min: 0, max: 0.95, step: 0.05, "aria-label": "Smoothing" });
    const axes = ["epoch", "seconds"].map((axis) =>
      h("button", { type: "button", onclick: () => set({ axis }) }, axis === "epoch" ? "Epochs" : "Time")
    );
    const set = (changes) => {
      Object.assign(this.values, changes);
      for (const [name, value] of Object.entries(changes)) memory.set(name, value);
      show();
      onchange();
    };
    const show = () => {
      slider.value = this.values.smoothing;
      number.textContent = this.values.smoothing ? Number(this.values.smoothing).toFixed(2) : "off";
      axes[0].setAttribute("aria-pressed", String(this.values.axis === "epoch"));
      axes[1].setAttribute("aria-pressed", String(this.values.axis === "seconds"));
    };
    slider.addEventListener("input", () => set({ smoothing: Number(slider.value) }));
    element.append(
      h("div", { class: "segments", role: "group", "aria-label": "Horizontal axis" }, axes),
      h("label", { class: "inline smoothing" }, h("span", { class: "small" }, "Smoothing"), slider, number),
    );
    show();
  }
}

// The x value of each epoch.
export function xValues(table, axis) {
  if (axis === "epoch") return table.epochs;
  let sum = 0;
  return table.seconds.map((seconds) => Math.round((sum += seconds) * 1000) / 1000);
}

// The common x range of all charts of a page: from the first epoch, or from time zero.
export function commonXRange(xs, axis) {
  const nonEmpty = xs.filter((x) => x.length);
  if (!nonEmpty.length) return [0, 1];
  return [axis === "seconds" ? 0 : Math.min(...nonEmpty.map((x) => x[0])), Math.max(...nonEmpty.map((x) => x.at(-1)))];
}

export class Curves {
  // ondraw(table): called when the charts show new values.
  constructor(root, address, ondraw) {
    this.root = root;
    this.ondraw = ondraw;
    this.charts = new Map();
    this.resumed = [];
    this.settings = new Settings($("#chart-settings"), () => this.draw());
    this.metrics = new Metrics(address, throttle(400, () => this.draw()));
  }

  get table() {
    return this.metrics.table;
  }

  load() {
    return this.metrics.load();
  }

  add(news) {
    this.metrics.add(news);
  }

  best(epoch) {
    this.metrics.amend((table) => (table.best_epoch = epoch));
  }

  resume(epoch) {
    this.resumed.push(epoch);
    this.metrics.onchange();
  }

  // A finding has begun or ended: the table has their periods.
  reload() {
    this.metrics.reload();
  }

  draw() {
    const table = this.table;
    if (!table) return;
    const columns = { ...table.series, ...table.resources };
    const names = Object.keys(columns).filter((name) => columns[name].some((value) => value !== null));
    const { axis, smoothing } = this.settings.values;
    const x = xValues(table, axis);
    const xAt = (epoch) => x[table.epochs.indexOf(epoch)];
    const marks = this.resumed.filter((epoch) => xAt(epoch) !== undefined).map((epoch) => ({
      x: xAt(epoch),
      text: "resumed",
    }));
    if (table.best_epoch && xAt(table.best_epoch) !== undefined) marks.push({ x: xAt(table.best_epoch), text: "best" });
    const bands = table.findings.map((finding) => ({
      from: xAt(finding.since),
      to: xAt(finding.until) ?? x.at(-1),
      color: finding.severity === "error" ? "bad-soft" : "wait-soft",
    }));
    const common = { axis, smoothing, marks, bands, range: commonXRange([x], axis) };
    const groups = Map.groupBy(names, (name) => groupOf(name).title);
    for (const title of [...groups.keys()].sort(inOrder)) {
      const members = groups.get(title);
      if (!this.charts.has(title)) {
        this.charts.set(title, new Chart(title, title));
        insert(this.charts, title, $(groupOf(members[0]).isOpen ? ".main" : ".others", this.root), inOrder);
      }
      const indexes = seriesIndexes(members);
      const series = members.map((name, index) => ({
        name,
        label: describe(name).label,
        x,
        y: columns[name],
        index: indexes[index],
        sparse: describe(name).sparse,
      }));
      this.charts.get(title).show({ ...common, series, format: formatOf(members[0]) });
    }
    $("#curves").hidden = names.length === 0;
    $("#more-curves").hidden = !$(".others", this.root).children.length;
    this.ondraw(table);
  }
}
