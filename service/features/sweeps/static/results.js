// The parts around the trials of a sweep: curves, settings with results, importance, and decisions as they are made.
import { $, $$, announce, capital, counted, describe, h, metric, sentence, settingName } from "../common/dom.js";
import { call, listen } from "../common/api.js";
import { drawCoordinates } from "../charts/coordinates.js";
import { Scatter } from "../charts/scatter.js";
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

const LOG_RATIO = 10; // of the values of a list, as of a range on the command line
const isLog = ({ log, choice }) =>
  Boolean(log) ||
  Boolean(choice?.every((value) => value > 0) && Math.max(...choice) / Math.min(...choice) >= LOG_RATIO);

export class SweepParts {
  // onevent(seq): called for each event of the sweep. onselect(selected): with the numbers of the brushed trials, or
  // null.
  constructor(sweep, onevent, onselect) {
    this.sweep = sweep;
    this.name = sweep.objective.metric;
    this.settings = Object.keys(sweep.resolved.space);
    this.curves = new SweepCurves(sweep, () => {
      this.colourLines();
      if (this.trials) this.drawSlices();
    });
    this.onselect = onselect;
    this.brushes = new Map();
    this.slices = new Map(
      this.settings.map((setting) => [
        setting,
        new Scatter(h("div", { class: "dots" }), { onlight: (trial) => this.light(trial), noun: "trial", height: 220 }),
      ]),
    );
    $(".slices").replaceChildren(...[...this.slices.values()].map(({ element }) => element));
    new IntersectionObserver(([entry]) => {
      this.showsSlices = entry.isIntersecting;
      if (this.trials) this.drawSlices();
    }).observe($(".slices")); // with a thousand trials, they take long
    $("#clear-brush").addEventListener("click", () => {
      this.brushes.clear();
      this.select(null);
      this.drawSettings();
    });
    this.first = Math.max(0, sweep.last_seq - INITIAL_DECISIONS); // the events after it are shown
    this.last = this.first;
    this.listenToSweep(onevent);
    $("#earlier").hidden = !this.first;
    $("#earlier").addEventListener(
      "click",
      () => this.showEarlier().catch((error) => announce(error.message, "error")),
    );
  }

  show(sweep, trials, metrics) {
    this.sweep = sweep;
    this.trials = trials.filter((trial) => trial.value !== null);
    const rendered = JSON.stringify([sweep.best_trial, this.trials.map((trial) => [trial.trial, trial.value])]);
    if (rendered !== this.rendered) this.drawSettings();
    this.rendered = rendered;
    this.curves.offer(metrics);
    const isDrawn = sweep.finished_at !== null && this.drawn === sweep.last_seq; // nothing will change
    const draw = async () => {
      if (await this.curves.draw()) this.drawn = sweep.last_seq;
    };
    return Promise.all([isDrawn || draw(), this.drawImportance().catch(() => {})]);
  }

  // The trials by their settings: parallel coordinates, and slices.
  drawSettings() {
    const { settings, name, sweep, trials, brushes } = this;
    for (const id of ["#parallel", "#slices"]) $(id).hidden = !settings.length || trials.length < 2;
    if ($("#parallel").hidden) return;
    const logs = settings.filter((setting) => isLog(sweep.resolved.space[setting]));
    drawCoordinates($("#coordinates"), {
      trials,
      settings,
      name,
      best: sweep.best_trial,
      label: describe(name).label,
      format: (value) => metric(name, value),
      logs,
      brushes,
      onbrush: (selected) => this.select(selected),
    });
    this.colourLines();
    this.drawSlices();
  }

  // A trial has the colour of its curve everywhere; one without a curve is grey.
  colourLines() {
    for (const path of $$("#coordinates path")) {
      const index = this.curves.colours.get(Number(path.dataset.trial));
      path.style.stroke = index === undefined ? "" : `var(--series-${index + 1})`;
    }
  }

  drawSlices() {
    const { name, sweep, selected, curves } = this;
    if (!this.showsSlices) return;
    for (const [setting, slice] of this.slices) {
      const points = this.trials.map(({ trial, settings, value, interval, jobs }) => ({
        id: trial,
        label: `Trial ${trial}`,
        href: jobs.length > 1
          ? `/ui/compare?jobs=${jobs.map(({ job }) => job).join(",")}&of=last`
          : `/ui/jobs/${jobs[0].job}`,
        x: typeof settings[setting] === "object" ? JSON.stringify(settings[setting]) : settings[setting],
        y: value,
        interval,
        index: selected && !selected.has(trial) ? null : (curves.colours.get(trial) ?? null),
      }));
      slice.show({
        points,
        setting: settingName(setting),
        metric: name,
        word: describe(name).label,
        isLog: isLog(sweep.resolved.space[setting]),
        isChosen: Boolean(sweep.resolved.space[setting].choice),
      });
    }
  }

  // Shows only the brushed trials in table, curves and slices; null: all.
  select(trials) {
    this.selected = trials && new Set(trials.map(({ trial }) => trial));
    $("#clear-brush").hidden = !trials;
    $("#brushed").textContent = trials
      ? `${trials.length} of ${counted(this.trials.length, "trial")} selected`
      : $("#brushed").dataset.hint;
    const sign = this.sweep.objective.goal === "maximize" ? -1 : 1;
    const best = trials?.toSorted((a, b) => b.rung_epoch - a.rung_epoch || sign * (a.value - b.value)).map((
      { trial },
    ) => trial);
    this.curves.select(best ?? null);
    this.drawSlices();
    this.onselect(this.selected);
  }

  light(trial) {
    for (const element of $$("#coordinates path, #trials tr")) {
      element.classList.toggle("lit", element.dataset.trial === String(trial));
    }
    for (const slice of this.slices.values()) slice.light(trial);
  }

  async drawImportance() {
    if (!this.settings.length || this.importanceSeq === this.sweep.last_seq) return;
    const { last_seq } = this.sweep;
    const { data, note } = await call(this.sweep.urls.importance);
    this.importanceSeq = last_seq;
    $("#importance-note").textContent = note;
    const measured = data.filter((item) => item.share !== null);
    $("#importance").hidden = !measured.length;
    $("#importance tbody").replaceChildren(
      ...measured.map((item) =>
        h(
          "tr",
          {},
          h("td", {}, h("code", {}, settingName(item.setting))),
          h(
            "td",
            { class: "number" },
            h("progress", { value: item.share, max: 1, "aria-hidden": "true" }),
            `${Math.round(100 * item.share)}%`,
          ),
          h("td", {}, item.distinguishable === false ? "not distinguishable" : (item.best ?? "–")),
        )
      ),
    );
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
        return data.error
          ? sentence(`Trial ${data.trial} has invalid settings: ${data.error.message}`)
          : `Trial ${data.trial} starts${
            settings.length
              ? ` with ${
                settings.map((setting) => `${settingName(setting)} ${settingText(data.settings[setting])}`).join(", ")
              }`
              : ""
          }.`;
      case "result":
        return data.error
          ? `Trial ${data.trial} failed: ${words(data.error)}.`
          : `Trial ${data.trial} has ${describe(name).label} ${metric(name, data.value)}.`;
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
