// The parts around the trials of a sweep: curves, settings with results, importance, and decisions as they are made.
import { $, announce, capital, describe, h, metric, sentence, settingName } from "../common/dom.js";
import { call, listen } from "../common/api.js";
import { drawCoordinates } from "../charts/coordinates.js";
import { SweepCurves } from "./trial-curves.js";
import { settingText } from "./trial-table.js";

const INITIAL_DECISIONS = 100; // number of decisions shown initially,
const MORE_DECISIONS = 500; // and added by each click

const EXHAUSTED = { budget: "the budget is used up", failures: "too many have failed" };
const ENDED = {
  done: "All trials have ended.",
  budget: "All trials that fit the budget have ended.",
  too_many_failed: "The sweep has ended: too many trials have failed.",
  no_result: "The sweep has ended without a finite value of the objective.",
};
const words = (code) => code.replaceAll("_", " ");

export class SweepParts {
  // onevent(seq): called for each event of the sweep.
  constructor(sweep, onevent) {
    this.sweep = sweep;
    this.name = sweep.objective.metric;
    this.settings = Object.keys(sweep.resolved.space);
    this.curves = new SweepCurves(sweep);
    this.first = Math.max(0, sweep.last_seq - INITIAL_DECISIONS); // the events after it are shown
    this.last = this.first;
    this.listenToSweep(onevent);
    $("#earlier").hidden = !this.first;
    $("#earlier").addEventListener("click", () => this.showEarlier().catch((error) => announce(error.message, "error")));
  }

  show(sweep, trials, metrics) {
    this.sweep = sweep;
    this.drawCoordinates(trials.filter((trial) => trial.value !== null));
    this.curves.offer(metrics);
    const isDrawn = sweep.finished_at !== null && this.drawn === sweep.last_seq; // nothing will change
    const draw = async () => {
      if (await this.curves.draw()) this.drawn = sweep.last_seq;
    };
    return Promise.all([isDrawn || draw(), this.drawImportance().catch(() => {})]);
  }

  drawCoordinates(trials) {
    const { settings, name, sweep } = this;
    $("#parallel").hidden = !settings.length || trials.length < 2;
    const rendered = JSON.stringify([sweep.best_trial, trials.map((trial) => [trial.trial, trial.value])]);
    if ($("#parallel").hidden || rendered === this.rendered) return;
    this.rendered = rendered;
    const logs = settings.filter((setting) => sweep.resolved.space[setting].log);
    drawCoordinates($("#coordinates"), { trials, settings, name, best: sweep.best_trial, label: describe(name).label, format: (value) => metric(name, value), logs });
  }

  async drawImportance() {
    if (!this.settings.length || this.importanceSeq === this.sweep.last_seq) return;
    const { last_seq } = this.sweep;
    const { data } = await call(this.sweep.urls.importance);
    this.importanceSeq = last_seq;
    const measured = data.filter((item) => item.share !== null);
    $("#importance").hidden = !measured.length;
    $("#importance tbody").replaceChildren(...measured.map((item) => h("tr", {}, h("td", {}, h("code", {}, settingName(item.setting))), h("td", { class: "number" }, h("progress", { value: item.share, max: 1, "aria-hidden": "true" }), `${Math.round(100 * item.share)}%`), h("td", {}, item.best ?? "–"))));
  }

  listenToSweep(onevent) {
    const receive = (event) => {
      if (event.seq <= this.last) return; // replayed after a reconnect
      this.last = event.seq;
      $("#decisions").prepend(this.item(event));
      onevent(event.seq);
    };
    const types = ["status", "propose", "result", "promote", "stop", "exhausted", "winner"];
    const stream = listen(() => `${this.sweep.urls.stream}?after=${this.last}`, {
      ...Object.fromEntries(types.map((type) => [type, receive])),
      end: (event) => {
        receive(event);
        stream.close();
      },
    });
  }

  async showEarlier() {
    const first = this.first;
    const after = Math.max(0, first - MORE_DECISIONS);
    const { data } = await call(`${this.sweep.urls.decisions}?after=${after}&limit=${MORE_DECISIONS}`);
    if (this.first !== first) return; // clicked twice
    this.first = after;
    $("#earlier").hidden = !after;
    $("#decisions").append(...data.filter((event) => event.seq <= first).reverse().map((event) => this.item(event)));
  }

  item(event) {
    return h("li", {}, this.sentenceOf(event));
  }

  sentenceOf({ type, data }) {
    const { name, settings } = this;
    const list = (items) => items.map(([trial, value]) => `${trial} (${metric(name, value)})`).join(", ");
    switch (type) {
      case "propose":
        return data.error ? sentence(`Trial ${data.trial} has invalid settings: ${data.error.message}`) : `Trial ${data.trial} starts${settings.length ? ` with ${settings.map((setting) => `${settingName(setting)} ${settingText(data.settings[setting])}`).join(", ")}` : ""}.`;
      case "result":
        return data.error ? `Trial ${data.trial} failed: ${words(data.error)}.` : `Trial ${data.trial} has ${describe(name).label} ${metric(name, data.value)}.`;
      case "promote":
        return `Promoted after epoch ${data.epoch}: ${list(data.trials)}.`;
      case "stop":
        return `Stopped after epoch ${data.epoch}: ${list(data.trials)}.`;
      case "exhausted":
        return `No more trials start: ${EXHAUSTED[data.by] ?? words(data.by)}.`;
      case "winner":
        return `The winner is trial ${data.trial} with ${metric(name, data.value)}.`;
      case "status":
        return ENDED[data.reason] ?? `${capital(words(data.reason))}.`;
      default:
        return `The sweep has ${data.status}.`;
    }
  }
}
