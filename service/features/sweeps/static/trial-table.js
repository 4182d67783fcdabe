// The trials of a sweep as a table, and the choice of its columns, which is stored for the next visit.
import { $, describe, h, keepFocus, memory, metric, settingName } from "../common/dom.js";

const STORAGE_KEY = "sweep.columns"; // name -> whether the column is shown, where the user has chosen
const TRIAL_COLUMN = "trial";
const MAX_COMPARED = 200; // jobs; the service's limit

export const settingText = (
  setting,
) => (typeof setting === "number"
  ? String(Number(setting.toPrecision(6)))
  : typeof setting === "string"
  ? setting
  : JSON.stringify(setting ?? null));

export class TrialTable {
  // on: callbacks: order(sort), light(trial or null)
  constructor(sweep, on) {
    this.name = sweep.objective.metric;
    this.isComparable = sweep.trials.total > 1;
    this.space = sweep.resolved.space;
    this.settings = Object.keys(this.space);
    this.on = on;
    this.rows = new Map(); // trial -> { rendered, element }
    this.metrics = []; // metrics of the trials other than the objective
    this.picked = new Set(); // numbers of trials to compare
    this.jobs = new Map(); // trial -> ids of its jobs, including trials that are no longer listed in the current order
    $("#choose-columns").addEventListener("click", () => this.choose());
    $("#columns-reset").addEventListener("click", () => {
      this.saveChoice({});
      this.choices();
    });
  }

  // All columns; those with `usual` are shown by default.
  columns() {
    const heading = (text, options) => ({ heading: text, usual: true, ...options });
    return [
      heading("Trial", { name: TRIAL_COLUMN, sort: "trial", cell: (trial) => this.trialCell(trial) }),
      heading(describe(this.name).label, {
        name: "value",
        sort: "value",
        number: true,
        cell: (trial) => this.valueCell(trial),
      }),
      heading("Status", { name: "status", sort: "status", cell: (trial) => this.statusCell(trial) }),
      heading("Epoch", {
        name: "epoch",
        sort: "epoch",
        number: true,
        cell: (trial) => h("td", { class: "number" }, String(trial.last_epoch)),
      }),
      ...this.settings.map((setting) =>
        heading(settingName(setting), {
          name: setting,
          sort: setting,
          number: this.isNumber(setting),
          cell: (trial) =>
            h(
              "td",
              { class: typeof trial.settings[setting] === "number" ? "number" : "" },
              settingText(trial.settings[setting]),
            ),
        })
      ),
      ...this.metrics.map((name) =>
        heading(describe(name).label, {
          name: name,
          usual: false,
          number: true,
          cell: (trial) => h("td", { class: "number" }, metric(name, trial.metrics[name])),
        })
      ),
      heading("Jobs by seed", { name: "jobs", cell: jobsCell }),
    ];
  }

  isNumber(setting) {
    const { choice } = this.space[setting];
    return !choice || choice.every((value) => typeof value === "number");
  }

  get shown() {
    const choices = memory.get(STORAGE_KEY, {});
    return this.columns().filter(({ name, usual }) => name === TRIAL_COLUMN || (choices[name] ?? usual));
  }

  saveChoice(choice) {
    memory.set(STORAGE_KEY, choice);
    this.draw();
  }

  choose() {
    this.choices();
    $("#columns").showModal();
  }

  choices() {
    const shown = new Set(this.shown.map(({ name }) => name));
    $("#columns-pick").replaceChildren(
      ...this.columns().filter(({ name }) => name !== TRIAL_COLUMN).map(({ name, heading }) =>
        h(
          "label",
          {},
          h("input", {
            type: "checkbox",
            name,
            checked: shown.has(name),
            onchange: (event) => this.saveChoice({ ...memory.get(STORAGE_KEY, {}), [name]: event.target.checked }),
          }),
          heading,
        )
      ),
    );
  }

  show(trials, sort, best, isPaused) {
    Object.assign(this, { trials, sort, best, isPaused });
    for (const { trial, jobs } of trials) {
      this.jobs.set(
        trial,
        jobs.filter((job) => job.status !== null).map(({ job }) => job),
      );
    }
    const names = new Set(trials.flatMap((trial) => Object.keys(trial.metrics)));
    names.delete(this.name);
    this.metrics = [...names].sort((a, b) => describe(a).label.localeCompare(describe(b).label));
    keepFocus("#trials tr", (row) => row.dataset.trial ?? "headings", () => this.draw());
    this.drawPicks();
  }

  trialCell({ trial, jobs }) {
    if (!this.isComparable || !jobs.length) return h("td", {}, String(trial));
    const onchange = (event) => {
      this.picked[event.target.checked ? "add" : "delete"](trial);
      this.drawPicks();
    };
    return h(
      "td",
      {},
      h(
        "label",
        { class: "pick-trial" },
        h("input", {
          type: "checkbox",
          autocomplete: "off",
          "aria-label": `Compare trial ${trial}`,
          checked: this.picked.has(trial),
          onchange,
        }),
        String(trial),
      ),
    );
  }

  // Offers to compare the ticked trials with each other, or a single one with the best.
  drawPicks() {
    const picked = [...this.picked].sort((a, b) => a - b);
    const offer = (link, trials) => {
      const jobs = trials.flatMap((trial) => this.jobs.get(trial) ?? []);
      link.hidden = trials.length < 2 || jobs.length > MAX_COMPARED ||
        trials.some((trial) => !this.jobs.get(trial)?.length);
      link.href = `/ui/compare?jobs=${jobs.join(",")}&of=last`; // the values of this page
    };
    offer($("#compare-picked"), picked);
    offer(
      $("#compare-best"),
      picked.length === 1 && this.best !== null && !this.picked.has(this.best) ? [...picked, this.best] : [],
    );
    $("#compare-picked").textContent = `Compare ${picked.length} trials`;
    $("#picks").hidden = !this.isComparable;
    $("#picks-hint").hidden = !$("#compare-picked").hidden || !$("#compare-best").hidden;
    $("#picks-hint").textContent = picked.length > 1
      ? `At most ${MAX_COMPARED} jobs can be compared, and a trial needs jobs.`
      : picked.length
      ? "Tick another trial to compare it with."
      : "Tick trials to compare them with each other or with the best.";
  }

  // Shows only these trials; null: all.
  select(trials) {
    this.selected = trials;
    this.draw();
  }

  draw() {
    const { sort, shown } = this;
    const heading = (column) => {
      const order = sort === column.sort ? "ascending" : sort === `-${column.sort}` ? "descending" : undefined;
      const text = column.sort
        ? h("button", {
          type: "button",
          onclick: () => this.on.order(sort === column.sort ? `-${column.sort}` : column.sort),
        }, column.heading)
        : column.heading;
      return h("th", { scope: "col", class: column.number ? "number" : null, "aria-sort": column.sort && order }, text);
    };
    const names = shown.map(({ name }) => name).join();
    const headKey = JSON.stringify([sort, names]);
    if (headKey !== this.headKey) $("#trials thead").replaceChildren(h("tr", {}, shown.map(heading)));
    this.headKey = headKey;
    const trials = this.trials.filter(({ trial }) => !this.selected || this.selected.has(trial));
    const rows = trials.flatMap((trial, index) => {
      const isFirst = this.isGrouped && trial.rung_epoch !== trials[index - 1]?.rung_epoch;
      return [...(isFirst ? [this.rungRow(trial.rung_epoch, shown.length)] : []), this.row(trial, shown, names)];
    });
    const body = $("#trials tbody");
    if (rows.length !== body.children.length || rows.some((row, index) => row !== body.children[index])) {
      body.replaceChildren(...rows);
    }
  }

  // By value, trials are in groups: those of one rung are comparable.
  get isGrouped() {
    return ["best", "value", "-value"].includes(this.sort) && this.trials.some((trial) => trial.rung_epoch);
  }

  rungRow(epoch, columns) {
    const key = `rung ${epoch} ${columns}`;
    if (!this.rows.has(key)) {
      this.rows.set(
        key,
        h(
          "tr",
          { class: "rung" },
          h(
            "th",
            { scope: "rowgroup", colspan: columns },
            h("span", {}, epoch ? `Trained to epoch ${epoch}` : "No value yet"),
          ),
        ),
      );
    }
    return this.rows.get(key);
  }

  // The row of a trial; an unchanged row is reused, so that a thousand rows are not recreated.
  row(trial, shown, names) {
    const isBest = trial.trial === this.best;
    const rendered = JSON.stringify([trial, names, isBest, this.isPaused]);
    const existing = this.rows.get(trial.trial);
    if (existing?.rendered === rendered) return existing.element;
    const element = h("tr", {
      class: isBest ? "best" : "",
      dataset: { trial: trial.trial },
      onpointerenter: () => this.on.light(trial.trial),
      onpointerleave: () => this.on.light(null),
    }, shown.map((column) => column.cell(trial)));
    this.rows.set(trial.trial, { rendered, element });
    return element;
  }

  // A trial's values over its seeds: mean, range, and the interval of the mean.
  valueCell(trial) {
    const values = trial.jobs.map((job) => job.value).filter((item) => item !== null);
    const rangeText = (title, label, low, high) =>
      h("span", { class: "range", title }, `${label}${metric(this.name, low)} to ${metric(this.name, high)}`);
    const range = values.length > 1
      ? rangeText("From the lowest to the highest seed", "seeds ", Math.min(...values), Math.max(...values))
      : "";
    const bounds = trial.interval;
    const hasWidth = bounds && bounds[1] - bounds[0] > 1e-9 * Math.abs(bounds[1]);
    const equal =
      "All seeds have the same value, which can be chance where a metric has few distinct values and there are few " +
      "seeds.";
    const interval = bounds && !hasWidth
      ? h("span", { class: "range", title: equal }, "95% CI over seeds: no width")
      : bounds
      ? rangeText("Student's 95% interval of the mean over the seeds", "95% CI over seeds ", ...bounds)
      : "";
    return h("td", { class: "value number" }, metric(this.name, trial.value), range, interval);
  }

  statusCell(trial) {
    const isQueued = trial.jobs.every((job) => job.status === "queued");
    const status = trial.status === "running" && (this.isPaused || isQueued)
      ? (this.isPaused ? "paused" : "queued")
      : trial.status;
    return h(
      "td",
      {},
      h("span", { class: `status ${status}` }, status),
      trial.error ? h("span", { class: "why" }, trial.error.message) : "",
    );
  }
}

function jobsCell(trial) {
  const link = (job) =>
    h("a", {
      class: "tag",
      href: `/ui/jobs/${job.job}`,
      title: `${job.status ?? "deleted"}, epoch ${job.epoch ?? "–"}`,
    }, `seed ${job.seed}`);
  return h("td", {}, h("div", { class: "seeds" }, trial.jobs.map(link)));
}
