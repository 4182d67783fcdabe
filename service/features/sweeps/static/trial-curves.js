// The curves of a sweep's best trials: means over the seeds, with a band around each.
import { $, describe, h, memory } from "../common/dom.js";
import { call } from "../common/api.js";
import { Chart } from "../charts/chart.js";
import { formatOf } from "../common/format.js";
import { requestSequence } from "../common/latest.js";

const MAX_CURVES = 8; // lines that can be distinguished by colour
const BANDS = {
  range: ["Lowest to highest seed", "low", "high"],
  interval: ["95% interval of the mean", "interval_low", "interval_high"],
  none: ["No band"],
};

export class SweepCurves {
  // oncolours(): called when other trials have curves, or other colours.
  constructor(sweep, oncolours) {
    this.sweep = sweep;
    this.oncolours = oncolours;
    this.metric = sweep.objective.metric;
    this.charts = new Map(); // metric -> chart
    this.colours = new Map(); // trial -> position in the palette
    this.nextRequest = requestSequence();
    this.band = memory.get("sweep.band", "range");
    if (!(this.band in BANDS)) this.band = "range";
    $("#band").replaceChildren(
      ...Object.entries(BANDS).map(([value, [label]]) => h("option", { value, selected: value === this.band }, label)),
    );
    $("#band").closest("label").hidden = sweep.seeds.length < 2;
    $("#band").addEventListener("change", ({ target }) => {
      this.band = target.value;
      memory.set("sweep.band", this.band);
      if (this.curves) this.show(this.curves);
    });
    $("#curve-metric").addEventListener("change", ({ target }) => {
      this.metric = target.value;
      this.draw();
    });
    this.offer([]);
  }

  // The available metrics.
  offer(metrics) {
    const names = [...new Set([this.sweep.objective.metric, this.metric, ...metrics])];
    if (names.join() === this.offered) return;
    this.offered = names.join();
    $("#curve-metric").replaceChildren(
      ...names.map((name) => h("option", { value: name, selected: name === this.metric }, describe(name).label)),
    );
  }

  // Shows the first of these trials, the best first; null: the best of all.
  select(trials) {
    this.selected = trials;
    this.draw();
  }

  // The parameters of a request for the curves of at most so many trials.
  query(metric, limit) {
    return `metric=${encodeURIComponent(metric)}&limit=${limit}${
      this.selected ? `&trials=${this.selected.slice(0, limit).join(",")}` : ""
    }`;
  }

  // A trial keeps its place in the palette as long as it is shown.
  colourOf(trial) {
    if (!this.colours.has(trial)) {
      this.colours.set(
        trial,
        [...Array(MAX_CURVES).keys()].find((index) => ![...this.colours.values()].includes(index)),
      );
    }
    return this.colours.get(trial);
  }

  // Resolves to true if there was a response.
  async draw() {
    if (this.selected && !this.selected.length) return this.show({ metric: this.metric, data: [] });
    const isNewest = this.nextRequest();
    const address = `${this.sweep.urls.self}/curves?${this.query(this.metric, MAX_CURVES)}`;
    const curves = await call(address).catch(() => null); // the next refresh tries again
    if (curves && isNewest()) this.show(curves);
    return curves !== null;
  }

  show(curves) {
    this.curves = curves;
    $("#curves-csv").href = `${this.sweep.urls.self}/curves?${this.query(curves.metric, 100)}&format=csv`;
    $("#curves-png").href = `${this.sweep.urls.self}/plots/curves.png?${
      this.query(curves.metric, MAX_CURVES)
    }&band=${this.band}`;
    $("#no-curves").hidden = curves.data.length > 0;
    $("#curves .charts").hidden = !curves.data.length;
    if (!curves.data.length) return void $("#curves .charts").replaceChildren();
    const { label, sparse } = describe(curves.metric);
    if (!this.charts.has(curves.metric)) this.charts.set(curves.metric, new Chart(`sweep.${curves.metric}`, label));
    const chart = this.charts.get(curves.metric);
    if (!chart.element.isConnected) $("#curves .charts").replaceChildren(chart.element);
    const [, low, high] = BANDS[this.band];
    const isBanded = low && this.sweep.seeds.length > 1;
    for (const trial of [...this.colours.keys()]) {
      if (!curves.data.some((item) => item.trial === trial)) this.colours.delete(trial);
    }
    const series = curves.data.map((item) => ({
      name: `trial ${item.trial}`,
      label: item.label,
      x: item.epochs,
      y: item.mean,
      ...(isBanded && { low: item[low], high: item[high] }),
      index: this.colourOf(item.trial),
      sparse,
    }));
    const colours = JSON.stringify([...this.colours]);
    if (colours !== this.reported) this.oncolours();
    this.reported = colours;
    const epochs = curves.data.flatMap((item) => item.epochs);
    const marks = this.sweep.resolved.rungs.slice(0, -1).map((x) => ({ x, text: "rung" }));
    chart.show({
      series,
      smoothing: 0,
      axis: "epoch",
      range: [Math.min(...epochs), Math.max(...epochs)],
      format: formatOf(curves.metric),
      marks,
    });
  }
}
