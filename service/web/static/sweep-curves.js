// The curves of a sweep's best trials: means over the seeds, with a band around each.
import { $, describe, h, memory, within } from "./dom.js";
import { call } from "./api.js";
import { Chart } from "./chart.js";
import { formatOf } from "./format.js";
import { turns } from "./latest.js";

const CURVES = 8; // lines that can be distinguished by colour
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
    this.turn = turns();
    this.band = memory.get("sweep.band", "range");
    if (!(this.band in BANDS)) this.band = "range";
    $("#band").replaceChildren(...Object.entries(BANDS).map(([value, [label]]) => h("option", { value, selected: value === this.band }, label)));
    $("#band").closest("label").hidden = sweep.seeds.length < 2;
    $("#band").addEventListener("change", ({ target }) => {
      this.band = target.value;
      memory.set("sweep.band", this.band);
      if (this.found) this.show(this.found);
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

  // Resolves to whether there was a response.
  async draw() {
    const isNewest = this.turn();
    const address = `${this.sweep.urls.self}/curves?metric=${encodeURIComponent(this.metric)}&limit=${CURVES}`;
    const found = await call(address).catch(() => null); // the next refresh tries again
    if (found && isNewest()) this.show(found);
    return found !== null;
  }

  show(found) {
    this.found = found;
    $("#curves-csv").href = `${this.sweep.urls.self}/curves?metric=${encodeURIComponent(found.metric)}&limit=100&format=csv`;
    $("#curves-png").href = `${this.sweep.urls.self}/plots/curves.png?metric=${encodeURIComponent(found.metric)}&limit=${CURVES}&band=${this.band}`;
    $("#no-curves").hidden = found.data.length > 0;
    $("#curves .charts").hidden = !found.data.length;
    if (!found.data.length) return void $("#curves .charts").replaceChildren();
    const { label, sparse } = describe(found.metric);
    if (!this.charts.has(found.metric)) this.charts.set(found.metric, new Chart(`sweep.${found.metric}`, label));
    const chart = this.charts.get(found.metric);
    if (!chart.element.isConnected) $("#curves .charts").replaceChildren(chart.element);
    const [, low, high] = BANDS[this.band];
    const cut = (bound) => within(found.metric, bound);
    const isBanded = low && this.sweep.seeds.length > 1;
    const series = found.data.map((item, index) => ({ name: `trial ${item.trial}`, label: `trial ${item.trial}`, x: item.epochs, y: item.mean, ...(isBanded && { low: item[low].map(cut), high: item[high].map(cut) }), index: index % 8, sparse }));
    const epochs = found.data.flatMap((item) => item.epochs);
    const marks = this.sweep.resolved.rungs.slice(0, -1).map((x) => ({ x, text: "rung" }));
    chart.show({ series, smoothing: 0, axis: "epoch", range: [Math.min(...epochs), Math.max(...epochs)], format: formatOf(found.metric), marks });
  }
}
