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
  constructor(sweep) {
    this.sweep = sweep;
    this.metric = sweep.objective.metric;
    this.charts = new Map(); // metric -> chart
    this.nextRequest = requestSequence();
    this.band = memory.get("sweep.band", "range");
    if (!(this.band in BANDS)) this.band = "range";
    $("#band").replaceChildren(...Object.entries(BANDS).map(([value, [label]]) => h("option", { value, selected: value === this.band }, label)));
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
    $("#curve-metric").replaceChildren(...names.map((name) => h("option", { value: name, selected: name === this.metric }, describe(name).label)));
  }

  // Resolves to true if there was a response.
  async draw() {
    const isNewest = this.nextRequest();
    const address = `${this.sweep.urls.self}/curves?metric=${encodeURIComponent(this.metric)}&limit=${MAX_CURVES}`;
    const curves = await call(address).catch(() => null); // the next refresh tries again
    if (curves && isNewest()) this.show(curves);
    return curves !== null;
  }

  show(curves) {
    this.curves = curves;
    $("#curves-csv").href = `${this.sweep.urls.self}/curves?metric=${encodeURIComponent(curves.metric)}&limit=100&format=csv`;
    $("#curves-png").href = `${this.sweep.urls.self}/plots/curves.png?metric=${encodeURIComponent(curves.metric)}&limit=${MAX_CURVES}&band=${this.band}`;
    $("#no-curves").hidden = curves.data.length > 0;
    $("#curves .charts").hidden = !curves.data.length;
    if (!curves.data.length) return void $("#curves .charts").replaceChildren();
    const { label, sparse } = describe(curves.metric);
    if (!this.charts.has(curves.metric)) this.charts.set(curves.metric, new Chart(`sweep.${curves.metric}`, label));
    const chart = this.charts.get(curves.metric);
    if (!chart.element.isConnected) $("#curves .charts").replaceChildren(chart.element);
    const [, low, high] = BANDS[this.band];
    const isBanded = low && this.sweep.seeds.length > 1;
    const series = curves.data.map((item, index) => ({ name: `trial ${item.trial}`, label: `trial ${item.trial}`, x: item.epochs, y: item.mean, ...(isBanded && { low: item[low], high: item[high] }), index: index % 8, sparse }));
    const epochs = curves.data.flatMap((item) => item.epochs);
    const marks = this.sweep.resolved.rungs.slice(0, -1).map((x) => ({ x, text: "rung" }));
    chart.show({ series, smoothing: 0, axis: "epoch", range: [Math.min(...epochs), Math.max(...epochs)], format: formatOf(curves.metric), marks });
  }
}
