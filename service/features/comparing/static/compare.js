// Compares jobs: curves on one chart, settings against metrics, the settings, samples of the same epoch.
import { $, $$, counted, describe, h, keyMetrics, memory, throttle } from "../common/dom.js";
import { call, callAll, listen, pool } from "../common/api.js";
import { Chart } from "../charts/chart.js";
import { drawSettings, replaceIfChanged, Settings } from "./settings.js";
import { byGroup, commonXRange, groupOf, insertMetric, Settings as ChartSettings, xValues } from "../charts/curves.js";
import { formatOf } from "../common/format.js";
import { isOver, shortId, statusClass, statusText, titleOf } from "../common/job-facts.js";
import { latest } from "../common/latest.js";
import { Metrics } from "../charts/metrics.js";
import { afterPress } from "../common/press.js";
import { Scatter } from "../charts/scatter.js";
import { samplesBeside } from "./samples-beside.js";
import { explain } from "./why.js";

// The number of lines that colours can distinguish; with more jobs, one at a time is highlighted.
const MAX_COLOURED_JOBS = 10;
const MAX_NAMED_SETTINGS = 3; // in the name of a line
const NOT_SETTINGS = ["seed", "name", "tags", "priority", "reuse"]; // jobs of one setting can differ in these
const MAX_CONCURRENT_REQUESTS = 4; // for metrics
// They decide which job is the best.
const OBJECTIVES = keyMetrics().filter((name) => describe(name).goal && !name.startsWith("train_"));

const jobs = JSON.parse($("#jobs").textContent);
const many = jobs.length > MAX_COLOURED_JOBS;
const settings = new Settings(jobs);
const charts = new Map();
const query = new URLSearchParams(location.search);
const whyNot = $("#why-not")?.textContent; // why no job is the best
let chartSettings;
let scatter;

// A job's colour is derived from its id, so it stays when other jobs are added or removed, unless two collide. Jobs
// whose line is the mean over the seeds have its colour.
function assignColours() {
  const sides = isJoined() ? groups() : [];
  sides.forEach((side, index) => side.forEach((job) => Object.assign(job, { index })));
  if (sides.length) return;
  const used = new Set();
  for (const job of jobs.toSorted((a, b) => (a.id < b.id ? -1 : 1))) {
    let index = [...job.id].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 8191, 7) % 8;
    while (used.has(index)) index = used.size < 8 ? (index + 1) % 8 : index + 8;
    used.add(index);
    job.index = index;
  }
}

function assignLabels() {
  const names = Map.groupBy(jobs, titleOf);
  for (const job of jobs) {
    job.label = names.get(titleOf(job)).length > 1 ? `${titleOf(job)} (${shortId(job.id)})` : titleOf(job);
  }
}

const swatch = (job) => (many ? null : h("span", { class: `swatch series-${(job.index % 8) + 1}` }));

// The best or the last value of a metric; always the last if the metric has no goal.
function valueOf(job, metric, aggregate) {
  const values = job.metrics.definedValues(metric);
  if (!values.length) return undefined;
  const { goal } = describe(metric);
  if (aggregate === "last" || !goal) return values.at(-1);
  return values.reduce((a, b) => (goal === "maximize" ? Math.max(a, b) : Math.min(a, b)));
}

// The best value of each objective for each job, and the jobs in order, the best first.
function bests() {
  return OBJECTIVES.flatMap((metric) => {
    const values = new Map(
      jobs.map((job) => [job.id, valueOf(job, metric, "best")]).filter(([, value]) => value !== undefined),
    );
    if (!values.size) return [];
    const sign = describe(metric).goal === "maximize" ? -1 : 1;
    const order = whyNot ? [] : [...values].sort((a, b) => sign * (a[1] - b[1])).map(([id]) => id);
    return [{ name: metric, values, order, top: order[0] }];
  });
}

function drawHeads(best) {
  const tops = new Map(
    best.toReversed().flatMap(({ name: metric, order }) =>
      [...Map.groupBy(order, (id) => jobs.find((job) => job.id === id).kind)].map((
        [kind, ids],
      ) => [kind, { metric, id: ids[0] }])
    ),
  );
  for (const job of jobs) job.top = tops.get(job.kind)?.id === job.id ? tops.get(job.kind).metric : null;
  replaceIfChanged(
    $("#compared"),
    jobs.map((job) => {
      const others = jobs.filter((other) => other !== job).map((other) => other.id);
      return h(
        "li",
        { class: "card", "data-job": job.id },
        swatch(job),
        h("a", { href: job.urls.page }, job.label),
        h("span", { class: statusClass(job) }, statusText(job)),
        job.top && jobs.length > 1
          ? h("span", { class: "tag", title: `Best ${describe(job.top).label}` }, "best")
          : null,
        others.length > 0
          ? h("a", {
            class: "button slim quiet",
            href: `/ui/compare?jobs=${others.join(",")}`,
            "aria-label": `Remove ${job.label}`,
            title: "Remove from the comparison",
          }, "✕")
          : null,
      );
    }),
  );
}

// Groups the jobs by setting: those of a group differ only in their seeds.
function groups() {
  const setting = ({ resolved }) =>
    JSON.stringify(Object.entries(resolved).filter(([name]) => !NOT_SETTINGS.includes(name)));
  return [...Map.groupBy(jobs, setting).values()];
}

// Some have the same seed.
const isRepeated = (side) => new Set(side.map((job) => job.resolved.seed)).size < side.length;

// Whether each setting can be one line, the mean over its seeds.
function canJoin() {
  const sides = groups();
  return sides.length < jobs.length && sides.length <= MAX_COLOURED_JOBS && !sides.some(isRepeated);
}

// Seconds differ between jobs.
const isJoined = () => chartSettings.values.axis === "epoch" && Boolean($("#joined")?.checked);

// The values in which a group differs from the others, in a few words.
function settingsText(side, sides) {
  const names = settings.differing.filter((name) =>
    new Set(sides.map(([job]) => String(settings.of(job, name)))).size > 1 &&
    !["seed", "tags", "priority", "reuse"].includes(name)
  );
  const text = names.slice(0, MAX_NAMED_SETTINGS).map((name) =>
    `${name.split(".").at(-1)} ${settings.of(side[0], name) ?? "–"}`
  ).join(", ");
  return `${text}${names.length > MAX_NAMED_SETTINGS ? " …" : ""}${text ? ", " : ""}${counted(side.length, "seed")}`;
}

// The line of a group: the mean over its seeds at each epoch, and a band from the lowest to the highest.
function joined(side, sides, metric) {
  const values = new Map(); // epoch -> values
  for (const { metrics: { table } } of side.filter((job) => job.metrics.table?.series[metric])) {
    table.epochs.forEach((epoch, row) => {
      const value = table.series[metric][row] ?? null;
      if (value !== null) values.set(epoch, [...(values.get(epoch) ?? []), value]);
    });
  }
  const x = [...values.keys()].sort((a, b) => a - b);
  const column = (of) => x.map((epoch) => of(values.get(epoch)));
  const ends = { low: column((all) => Math.min(...all)), high: column((all) => Math.max(...all)) };
  return {
    name: `seeds of ${side[0].id}`,
    label: settingsText(side, sides),
    x,
    y: column((all) => all.reduce((sum, value) => sum + value, 0) / all.length),
    ...(side.length > 1 && ends),
    index: sides.indexOf(side),
    sparse: describe(metric).sparse,
  };
}

function hint(text) {
  $("#sentences-hint").hidden = false;
  $("#sentences-hint").textContent = text;
}

// For two settings: sentences with the difference of their means over the seeds, of best or last values as in the
// scatter plot.
const drawVerdicts = latest(async () => {
  const sides = groups();
  const count = jobs.length < 2 ? 2 : sides.length;
  if (count > 2) {
    hint(
      "The difference of the means over the seeds, with its 95% interval, is shown for two settings. " +
        `These are ${count}: remove jobs until two settings are left.`,
    );
  }
  if (count < 2 && !whyNot) {
    hint(
      "These jobs differ in their seeds alone. " +
        "Compare them with jobs of another setting to see the difference with its 95% interval.",
    );
  }
  if (sides.length !== 2 || sides.some(isRepeated) || jobs.some((job) => job.kind !== jobs[0].kind)) return;
  const [a, b] = sides.map((side) => side.map((job) => job.id).join(","));
  const results = [];
  const notes = new Set();
  for (const name of OBJECTIVES.filter((metric) => jobs.some((job) => job.metrics.definedValues(metric).length))) {
    const comparison = await call(`/comparisons?a=${a}&b=${b}&metric=${name}&of=${$("#scatter-of").value}`).catch(() =>
      null
    );
    if (comparison?.comparable) {
      results.push([
        comparison.sentence,
        ...comparison.notes.filter((note) => !notes.has(note)),
      ]);
    }
    for (const note of comparison?.notes ?? []) notes.add(note); // each note once: most apply to every metric
  }
  $("#sentences").hidden = !results.length;
  const isLast = $("#scatter-of").value === "last";
  const switchButton = h("button", {
    type: "button",
    class: "slim quiet",
    onclick: () => chooseValues(isLast ? "best" : "last"),
  }, isLast ? "Compare the best epochs" : "Compare the last epochs");
  $("#sentences-of").replaceChildren(
    isLast
      ? "These are differences in the last epoch, as on the page of a sweep and in tapeline compare. "
      : "These are differences between the best values of all epochs. " +
        "The page of a sweep and tapeline compare use those of the last epoch. ",
    switchButton,
  );
  $("#sentences-of").hidden = false;
  $("#sentences ul").replaceChildren(
    ...results.map(([text, ...resultNotes]) =>
      h("li", {}, text, resultNotes.map((note) => h("div", { class: "small muted" }, `Note: ${withJobNames(note)}.`)))
    ),
  );
});

function chooseValues(aggregate) {
  $("#scatter-of").value = aggregate;
  $("#scatter-of").dispatchEvent(new Event("change"));
}

// A note with the names of the jobs instead of their ids.
const withJobNames = (note) => jobs.reduce((text, job) => text.replaceAll(job.id, () => job.label), note);

function drawCurves() {
  const { axis, smoothing } = chartSettings.values;
  const loaded = jobs.filter((job) => job.metrics.table);
  for (const job of loaded) job.x = xValues(job.metrics.table, axis);
  const range = commonXRange(loaded.map((job) => job.x), axis);
  const sides = isJoined() ? groups() : null;
  const names = new Set(loaded.flatMap((job) => Object.keys(job.metrics.table.series)));
  for (const metric of [...names].sort(byGroup)) {
    const measured = loaded.filter((job) => job.metrics.definedValues(metric).length);
    if (!measured.length) continue;
    if (!charts.has(metric)) {
      charts.set(metric, new Chart(metric, describe(metric).label, { onlight: light }));
      insertMetric(charts, metric, $(groupOf(metric).isOpen ? "#curves .main" : "#curves .others"));
    }
    const { sparse } = describe(metric);
    if (sides) {
      const series = sides.map((side) => joined(side, sides, metric)).filter((line) => line.x.length);
      charts.get(metric).show({ series, smoothing, axis, range, format: formatOf(metric) });
      continue;
    }
    const series = measured.map((job) => ({
      name: job.id,
      label: job.label,
      x: job.x,
      y: job.metrics.table.series[metric],
      index: job.index,
      sparse,
    }));
    charts.get(metric).show({
      series,
      smoothing,
      axis,
      range,
      format: formatOf(metric),
      many,
      best: measured.find((job) => job.top)?.id,
    });
  }
  $("#more-curves").hidden = !$("#curves .others").children.length;
  const isEmpty = !charts.size && loaded.length === jobs.length;
  $("#no-curves").hidden = !isEmpty;
  $("#no-curves").textContent = jobs.every(isOver)
    ? "None of these jobs has finished an epoch."
    : "No epoch has finished yet. Curves appear after the first one.";
  for (const part of ["#chart-settings", "#chart-keys"]) $(part).hidden = isEmpty;
}

function drawTable(best) {
  // Many jobs are shown as rows, the best first.
  const ranks = new Map(best.flatMap(({ order }) => order).map((id, rank) => [id, rank]).toReversed());
  const order = many ? jobs.toSorted((a, b) => (ranks.get(a.id) ?? Infinity) - (ranks.get(b.id) ?? Infinity)) : jobs;
  const heading = (
    job,
  ) => [
    swatch(job),
    " ",
    many ? h("a", { href: job.urls.page }, job.label) : job.label,
    many && job.top ? h("span", { class: "tag" }, "best") : null,
  ];
  drawSettings(settings, order, best, { byRow: many, identical: $("#identical").checked, heading });
}

function wireScatter() {
  const [x, y, aggregate] = ["x", "y", "of"].map((part) => $(`#scatter-${part}`));
  const identical = settings.names.filter((setting) => !settings.differing.includes(setting));
  const group = (
    label,
    names,
  ) => (names.length
    ? h("optgroup", { label }, names.map((setting) => h("option", { value: setting }, setting)))
    : null);
  x.replaceChildren(
    ...[group("Settings that differ", settings.differing), group("Identical settings", identical)].filter(Boolean),
  );
  const defaultSetting = settings.differing.find((setting) => setting.endsWith("learning_rate")) ??
    settings.differing.find((setting) => jobs.some((job) => typeof settings.of(job, setting) === "number"));
  x.value = settings.names.includes(query.get("x")) ? query.get("x") : defaultSetting ?? x.value;
  aggregate.value = query.get("of") === "last" ? "last" : "best";
  scatter = new Scatter($("#dots"), { onlight: light });
  for (const select of [x, y, aggregate]) {
    select.addEventListener("change", () => {
      // Only the changed one: the others may still be waiting for metrics.
      query.set(select.id.replace("scatter-", ""), select.value);
      history.replaceState(null, "", `?${query}`.replaceAll("%2C", ","));
      drawScatter();
      if (select === aggregate) drawVerdicts();
    });
  }
}

function drawScatter() {
  const [x, y, aggregate] = ["x", "y", "of"].map((part) => $(`#scatter-${part}`));
  const metrics = [...new Set(jobs.flatMap((job) => Object.keys(job.metrics.table?.series ?? {})))].sort(byGroup);
  $("#scatter").hidden = metrics.length === 0 || jobs.length < 2;
  if ($("#scatter").hidden) return;
  if (metrics.join() !== [...y.options].map((option) => option.value).join()) {
    y.replaceChildren(...metrics.map((metric) => h("option", { value: metric }, describe(metric).label)));
  }
  // A metric named in the URL may belong to a job whose metrics are still being loaded.
  y.value = [query.get("y"), ...OBJECTIVES].find((metric) => metrics.includes(metric)) ?? metrics[0];
  const points = jobs
    .map((job) => ({
      id: job.id,
      label: job.label,
      href: job.urls.page,
      x: settings.of(job, x.value),
      y: valueOf(job, y.value, aggregate.value),
      index: many ? (job.top ? 1 : null) : job.index,
    }))
    .filter((point) => point.x !== undefined && point.y !== undefined);
  const word = `${aggregate.value === "last" || !describe(y.value).goal ? "last" : "best"} ${describe(y.value).label}`;
  scatter.show({ points, setting: x.value, metric: y.value, word });
  $("#left-out").hidden = points.length === jobs.length;
  $("#left-out").textContent = `Not shown: ${
    jobs.length - points.length
  } of ${jobs.length} jobs, which lack the setting or the metric.`;
}

// Highlights one of many jobs: in the charts, the list, the table and the scatter plot.
let litId = null;
function light(id) {
  if (id === litId) return;
  litId = id;
  for (const chart of charts.values()) chart.light(id);
  scatter?.light(id);
  mark(id);
}

function mark(id) {
  for (const element of $$("[data-job].lit")) element.classList.remove("lit");
  if (id) { for (const element of $$(`[data-job="${id}"]`)) element.classList.add("lit"); }
}

function drawAll() {
  const best = bests();
  mark(null); // unchanged elements are kept, but a mark would count as a change
  drawHeads(best);
  drawCurves();
  drawTable(best);
  drawScatter();
  mark(litId);
}

function followJobs(scrubber, redraw) {
  const followed = jobs.filter((job) => !isOver(job));
  const jobById = (id) => followed.find((job) => job.id === id);
  const updateStatus = (job, status) => {
    if (status === "cancelled" && job.status !== status) cancelled.add(job);
    job.status = status;
    loadStopReasons();
    if (followed.every(isOver)) stream.close();
    redraw();
  };
  // The stream does not say whether their sweeps stopped them.
  const cancelled = new Set();
  const loadStopReasons = throttle(
    400,
    latest(async () => {
      const pending = [...cancelled];
      cancelled.clear();
      await pool(pending, MAX_CONCURRENT_REQUESTS, async (job) => {
        const { stopped_by_sweep } = await call(job.urls.self).catch(() => job);
        Object.assign(job, { stopped_by_sweep });
      });
      if (pending.length) redraw();
    }),
  );
  const addSample = (job, epoch) => {
    if (job.hides_samples) return;
    job.samples = [...new Set([...job.samples, epoch])].sort((a, b) => a - b); // an epoch can be reported twice
    $("#samples").hidden = false;
    scrubber.add(epoch);
  };
  const loadSamples = async (job) => {
    if (job.hides_samples) return;
    const missed = (await callAll(job.urls.samples).catch(() => [])).filter(({ epoch }) =>
      !job.samples.includes(epoch)
    );
    for (const { epoch } of missed) addSample(job, epoch);
  };
  const status = (event) => updateStatus(jobById(event.job), event.status);
  const stream = listen(() => `/stream?jobs=${followed.map((job) => job.id).join(",")}`, {
    // Catches up with what happened before the stream was opened or while it was interrupted.
    snapshot: (event) => {
      for (const state of event.jobs) {
        const job = jobById(state.id);
        if (state.progress.epoch > state.start_epoch) job.metrics.reach(state.progress.epoch);
        if (state.progress.epoch > (job.samples.at(-1) ?? state.start_epoch)) loadSamples(job);
        updateStatus(job, state.status);
      }
    },
    metrics: (event) => jobById(event.job).metrics.add(event),
    sample: (event) => addSample(jobById(event.job), event.epoch),
    status,
    end: status,
  });
}

if (jobs.length) {
  assignLabels();
  document.documentElement.classList.toggle("many", many);
  const recolour = () => {
    assignColours();
    drawAll();
  };
  chartSettings = new ChartSettings($("#chart-settings"), recolour);
  if (canJoin()) {
    const box = h("input", { type: "checkbox", id: "joined", checked: memory.get("compare.joined", true) });
    box.addEventListener("change", () => {
      memory.set("compare.joined", box.checked);
      recolour();
    });
    $("#chart-settings").append(h("label", { class: "inline small" }, box, "Mean and range over the seeds"));
  }
  assignColours();
  const redraw = throttle(many ? 1000 : 400, () => afterPress(drawAll));
  for (const job of jobs) job.metrics = new Metrics(job.urls.metrics, redraw);
  wireScatter();
  drawAll();
  const scrubber = samplesBeside(jobs, swatch);
  $("#identical").addEventListener("change", () => drawTable(bests()));
  // Everywhere a job is named, except in charts, which report the line under the pointer themselves. mouseleave would
  // not fire for an element that was replaced under the pointer.
  const jobAt = (event) => event.target.closest("[data-job]")?.dataset.job ?? null;
  document.addEventListener("mouseover", (event) => event.target.closest(".plot") || light(jobAt(event)));
  document.addEventListener("focusin", (event) => jobAt(event) && light(jobAt(event)));
  if (jobs.some((job) => !isOver(job))) followJobs(scrubber, redraw);
  await pool(jobs, MAX_CONCURRENT_REQUESTS, (job) => job.metrics.load().catch(() => {}));
  await drawVerdicts();
  await explain(jobs);
}
