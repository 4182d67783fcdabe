// Compares jobs: curves on one chart, settings against metrics, the settings, samples of the same epoch.
import { $, $$, describe, h, throttle } from "./dom.js";
import { call, callAll, listen, pool } from "./api.js";
import { Chart } from "./chart.js";
import { Settings, drawSettings, renew } from "./compare-settings.js";
import { Settings as ChartSettings, byGroup, commonXRange, groupOf, insertMetric, xValues } from "./curves.js";
import { formatOf } from "./format.js";
import { isOver, shortId, statusClass, statusText, titleOf } from "./job-facts.js";
import { latest } from "./latest.js";
import { Metrics } from "./metrics.js";
import { Samples } from "./samples.js";
import { Scatter } from "./scatter.js";
import { explain } from "./why.js";

const DISTINCT = 10; // lines that can be distinguished by colour; of more, one at a time is highlighted
const MAX_CONCURRENT_REQUESTS = 4; // for metrics
const OBJECTIVES = ["val_accuracy", "val_loss", "frechet_distance"]; // metrics that decide which job is the best

const jobs = JSON.parse($("#jobs").textContent);
const many = jobs.length > DISTINCT;
const settings = new Settings(jobs);
const charts = new Map();
const asked = new URLSearchParams(location.search);
let chartSettings;
let scatter;

// A job's colour is derived from its id, so it stays when other jobs are added or removed, unless two collide.
function colours() {
  const used = new Set();
  for (const job of jobs.toSorted((a, b) => (a.id < b.id ? -1 : 1))) {
    let index = [...job.id].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 8191, 7) % 8;
    while (used.has(index)) index = used.size < 8 ? (index + 1) % 8 : index + 8;
    used.add(index);
    job.index = index;
  }
}

function name() {
  const names = Map.groupBy(jobs, titleOf);
  for (const job of jobs) job.label = names.get(titleOf(job)).length > 1 ? `${titleOf(job)} (${shortId(job.id)})` : titleOf(job);
}

const swatch = (job) => (many ? null : h("span", { class: `swatch series-${(job.index % 8) + 1}` }));

// The best value of a metric, or its last one if the metric has no goal.
function valueOf(job, metric, of) {
  const known = job.metrics.known(metric);
  if (!known.length) return undefined;
  const { goal } = describe(metric);
  if (of === "last" || !goal) return known.at(-1);
  return known.reduce((a, b) => (goal === "maximize" ? Math.max(a, b) : Math.min(a, b)));
}

// The best value of each objective, and the job that has the best of all.
function bests() {
  return OBJECTIVES.flatMap((metric) => {
    const values = new Map(jobs.map((job) => [job.id, valueOf(job, metric, "best")]).filter(([, value]) => value !== undefined));
    if (!values.size) return [];
    const sign = describe(metric).goal === "maximize" ? -1 : 1;
    const order = [...values].sort((a, b) => sign * (a[1] - b[1])).map(([id]) => id);
    return [{ name: metric, values, order, top: order[0] }];
  });
}

function drawHeads(best) {
  const tops = new Map(best.toReversed().flatMap(({ name: metric, order }) => [...Map.groupBy(order, (id) => jobs.find((job) => job.id === id).kind)].map(([kind, ids]) => [kind, { metric, id: ids[0] }])));
  for (const job of jobs) job.top = tops.get(job.kind)?.id === job.id ? tops.get(job.kind).metric : null;
  renew(
    $("#compared"),
    jobs.map((job) => {
      const others = jobs.filter((other) => other !== job).map((other) => other.id);
      return h(
        "li",
        { class: "card", "data-job": job.id },
        swatch(job),
        h("a", { href: job.urls.page }, job.label),
        h("span", { class: statusClass(job) }, statusText(job)),
        job.top && jobs.length > 1 ? h("span", { class: "tag", title: `Best ${describe(job.top).label}` }, "best") : null,
        others.length > 0 ? h("a", { class: "button slim quiet", href: `/ui/compare?jobs=${others.join(",")}`, "aria-label": `Remove ${job.label}`, title: "Remove from the comparison" }, "✕") : null,
      );
    }),
  );
}

// Groups the jobs by setting: those of a group differ only in their seeds.
function groups() {
  const setting = ({ resolved: { seed, name, tags, priority, reuse, ...rest } }) => JSON.stringify(rest);
  return [...Map.groupBy(jobs, setting).values()];
}

function hint(text) {
  $("#sentences-hint").hidden = false;
  $("#sentences-hint").textContent = text;
}

// Two settings: a sentence with the difference of their means over the seeds, of best or last values as in the scatter plot.
const drawVerdicts = latest(async () => {
  const sides = groups();
  const isRepeated = (side) => new Set(side.map((job) => job.resolved.seed)).size < side.length; // the same training twice
  const count = jobs.length < 2 ? 2 : sides.length;
  if (count > 2) hint(`The difference of the means over the seeds, with its 95% interval, is shown for two settings. These are ${count}: remove jobs until two settings are left.`);
  if (count < 2) hint("These jobs differ in their seeds alone. Compare them with jobs of another setting to see the difference with its 95% interval.");
  if (sides.length !== 2 || sides.some(isRepeated) || jobs.some((job) => job.kind !== jobs[0].kind)) return;
  const [a, b] = sides.map((side) => side.map((job) => job.id).join(","));
  const found = [];
  const notes = new Set();
  for (const name of OBJECTIVES.filter((metric) => jobs.some((job) => job.metrics.known(metric).length))) {
    const answer = await call(`/comparisons?a=${a}&b=${b}&metric=${name}&of=${$("#scatter-of").value}`).catch(() => null);
    if (answer) found.push([answer.sentence, ...answer.notes.filter((note) => !notes.has(note))]);
    for (const note of answer?.notes ?? []) notes.add(note); // once: most hold for every metric
  }
  $("#sentences").hidden = !found.length;
  const isLast = $("#scatter-of").value === "last";
  const other = h("button", { type: "button", class: "slim quiet", onclick: () => chooseValues(isLast ? "best" : "last") }, isLast ? "Compare the best epochs" : "Compare the last epochs");
  $("#sentences-of").replaceChildren(isLast ? "These are differences in the last epoch, as on the page of a sweep and in tapeline compare. " : "These are differences between the best values of all epochs. The page of a sweep and tapeline compare use those of the last epoch. ", other);
  $("#sentences-of").hidden = false;
  $("#sentences ul").replaceChildren(...found.map(([text, ...more]) => h("li", {}, text, more.map((note) => h("div", { class: "small muted" }, `Note: ${named(note)}.`)))));
});

function chooseValues(of) {
  $("#scatter-of").value = of;
  $("#scatter-of").dispatchEvent(new Event("change"));
}

// A note with the names of the jobs instead of their ids.
const named = (note) => jobs.reduce((text, job) => text.replaceAll(job.id, () => job.label), note);

function drawCurves() {
  const { axis, smoothing } = chartSettings.values;
  const loaded = jobs.filter((job) => job.metrics.table);
  for (const job of loaded) job.x = xValues(job.metrics.table, axis);
  const range = commonXRange(loaded.map((job) => job.x), axis);
  const names = new Set(loaded.flatMap((job) => Object.keys(job.metrics.table.series)));
  for (const metric of [...names].sort(byGroup)) {
    const having = loaded.filter((job) => job.metrics.known(metric).length);
    if (!having.length) continue;
    if (!charts.has(metric)) {
      charts.set(metric, new Chart(metric, describe(metric).label, { onlight: light }));
      insertMetric(charts, metric, $(groupOf(metric)[2] ? "#curves .main" : "#curves .others"));
    }
    const { sparse } = describe(metric);
    const series = having.map((job) => ({ name: job.id, label: job.label, x: job.x, y: job.metrics.table.series[metric], index: job.index, sparse }));
    charts.get(metric).show({ series, smoothing, axis, range, format: formatOf(metric), many, best: having.find((job) => job.top)?.id });
  }
  $("#more-curves").hidden = !$("#curves .others").children.length;
  const isEmpty = !charts.size && loaded.length === jobs.length;
  $("#no-curves").hidden = !isEmpty;
  $("#no-curves").textContent = jobs.every(isOver) ? "None of these jobs has finished an epoch." : "No epoch has finished yet. Curves appear after the first one.";
  for (const part of ["#chart-settings", "#chart-keys"]) $(part).hidden = isEmpty;
}

function drawTable(best) {
  // Many jobs are shown as rows, the best first.
  const place = new Map(best.flatMap(({ order }) => order).map((id, at) => [id, at]).toReversed());
  const order = many ? jobs.toSorted((a, b) => (place.get(a.id) ?? Infinity) - (place.get(b.id) ?? Infinity)) : jobs;
  const heading = (job) => [swatch(job), " ", many ? h("a", { href: job.urls.page }, job.label) : job.label, many && job.top ? h("span", { class: "tag" }, "best") : null];
  drawSettings(settings, order, best, { byRow: many, identical: $("#identical").checked, heading });
}

function wireScatter() {
  const [x, y, of] = ["x", "y", "of"].map((part) => $(`#scatter-${part}`));
  const rest = settings.names.filter((setting) => !settings.differing.includes(setting));
  const group = (label, names) => (names.length ? h("optgroup", { label }, names.map((setting) => h("option", { value: setting }, setting))) : null);
  x.replaceChildren(...[group("Settings that differ", settings.differing), group("Identical settings", rest)].filter(Boolean));
  const usual = settings.differing.find((setting) => setting.endsWith("learning_rate")) ?? settings.differing.find((setting) => jobs.some((job) => typeof settings.of(job, setting) === "number"));
  x.value = settings.names.includes(asked.get("x")) ? asked.get("x") : usual ?? x.value;
  of.value = asked.get("of") === "last" ? "last" : "best";
  scatter = new Scatter($("#dots"), { onlight: light });
  for (const select of [x, y, of]) {
    select.addEventListener("change", () => {
      asked.set(select.id.replace("scatter-", ""), select.value); // only this one: the other may still wait for metrics
      history.replaceState(null, "", `?${asked}`.replaceAll("%2C", ","));
      drawScatter();
      if (select === of) drawVerdicts();
    });
  }
}

function drawScatter() {
  const [x, y, of] = ["x", "y", "of"].map((part) => $(`#scatter-${part}`));
  const metrics = [...new Set(jobs.flatMap((job) => Object.keys(job.metrics.table?.series ?? {})))].sort(byGroup);
  $("#scatter").hidden = metrics.length === 0 || jobs.length < 2;
  if ($("#scatter").hidden) return;
  if (metrics.join() !== [...y.options].map((option) => option.value).join()) y.replaceChildren(...metrics.map((metric) => h("option", { value: metric }, describe(metric).label)));
  // A metric named in the URL may belong to a job whose metrics are still being loaded.
  y.value = [asked.get("y"), ...OBJECTIVES].find((metric) => metrics.includes(metric)) ?? metrics[0];
  const points = jobs
    .map((job) => ({ id: job.id, label: job.label, href: job.urls.page, x: settings.of(job, x.value), y: valueOf(job, y.value, of.value), index: many ? (job.top ? 1 : null) : job.index }))
    .filter((point) => point.x !== undefined && point.y !== undefined);
  const word = `${of.value === "last" || !describe(y.value).goal ? "last" : "best"} ${describe(y.value).label}`;
  scatter.show({ points, setting: x.value, metric: y.value, word });
  $("#left-out").hidden = points.length === jobs.length;
  $("#left-out").textContent = `Not shown: ${jobs.length - points.length} of ${jobs.length} jobs, which lack the setting or the metric.`;
}

// Highlights one of many jobs: in the charts, the list, the table and the scatter plot.
let lit = null;
function light(id) {
  if (id === lit) return;
  lit = id;
  for (const chart of charts.values()) chart.light(id);
  scatter?.light(id);
  mark(id);
}

function mark(id) {
  for (const element of $$("[data-job].lit")) element.classList.remove("lit");
  if (id) for (const element of $$(`[data-job="${id}"]`)) element.classList.add("lit");
}

function wireSamples() {
  const epochs = [...new Set(jobs.flatMap((job) => job.samples))].sort((a, b) => a - b);
  $("#samples").hidden = epochs.length === 0;
  const frames = jobs.map((job) => ({ job, image: h("img", { class: "pixels", alt: "", loading: "lazy" }), text: h("span", { class: "small muted" }) }));
  $("#beside").replaceChildren(h("img", { hidden: true, alt: "" }), ...frames.map(({ job, image, text }) => h("figure", { "data-job": job.id }, image, h("figcaption", { class: "small" }, swatch(job), ` ${job.label} `, text))));
  // The slider covers all epochs of all jobs; each job shows its latest image up to that epoch.
  const scrubber = new Samples($("#samples"), [], () => "data:,");
  scrubber.listeners.push((epoch) => {
    for (const { job, image, text } of frames) {
      const own = job.samples.findLast((item) => item <= epoch);
      image.hidden = own === undefined;
      text.textContent = own === undefined ? "none yet" : `epoch ${own}`;
      if (own === undefined) continue;
      const address = `${job.urls.self}/samples/${own}.png`;
      image.alt = `Samples of ${job.label}, epoch ${own}`;
      if (image.getAttribute("src") !== address) image.src = address;
    }
  });
  scrubber.epochs = epochs;
  if (epochs.length) scrubber.show(epochs.length - 1);
  return scrubber;
}

function drawAll() {
  const best = bests();
  mark(null); // unchanged elements are kept, and a mark would count as a change
  drawHeads(best);
  drawCurves();
  drawTable(best);
  drawScatter();
  mark(lit);
}

function followJobs(scrubber, redraw) {
  const followed = jobs.filter((job) => !isOver(job));
  const find = (id) => followed.find((job) => job.id === id);
  const take = (job, status) => {
    if (status === "cancelled" && job.status !== status) cancelled.add(job);
    job.status = status;
    askWhoStopped();
    if (followed.every(isOver)) stream.close();
    redraw();
  };
  // The stream does not say whether their sweeps stopped them.
  const cancelled = new Set();
  const askWhoStopped = throttle(400, latest(async () => {
    const those = [...cancelled];
    cancelled.clear();
    await pool(those, MAX_CONCURRENT_REQUESTS, async (job) => {
      const { stopped_by_sweep } = await call(job.urls.self).catch(() => job);
      Object.assign(job, { stopped_by_sweep });
    });
    if (those.length) redraw();
  }));
  const addSample = (job, epoch) => {
    job.samples = [...new Set([...job.samples, epoch])].sort((a, b) => a - b); // some are reported twice
    $("#samples").hidden = false;
    scrubber.add(epoch);
  };
  const loadSamples = async (job) => {
    const missed = (await callAll(job.urls.samples).catch(() => [])).filter(({ epoch }) => !job.samples.includes(epoch));
    for (const { epoch } of missed) addSample(job, epoch);
  };
  const status = (news) => take(find(news.job), news.status);
  const stream = listen(() => `/stream?jobs=${followed.map((job) => job.id).join(",")}`, {
    // What was missed, before the stream was opened or while it was lost.
    snapshot: (news) => {
      for (const shown of news.jobs) {
        const job = find(shown.id);
        if (shown.progress.epoch > shown.start_epoch) job.metrics.reach(shown.progress.epoch);
        if (shown.progress.epoch > (job.samples.at(-1) ?? shown.start_epoch)) loadSamples(job);
        take(job, shown.status);
      }
    },
    metrics: (news) => find(news.job).metrics.add(news),
    sample: (news) => addSample(find(news.job), news.epoch),
    status,
    end: status,
  });
}

if (jobs.length) {
  colours();
  name();
  document.documentElement.classList.toggle("many", many);
  chartSettings = new ChartSettings($("#chart-settings"), drawCurves);
  const redraw = throttle(many ? 1000 : 400, drawAll);
  for (const job of jobs) job.metrics = new Metrics(job.urls.metrics, redraw);
  wireScatter();
  drawAll();
  const scrubber = wireSamples();
  $("#identical").addEventListener("change", () => drawTable(bests()));
  // Everywhere a job is named, except in charts, which report the line under the pointer themselves. mouseleave would not
  // fire for an element that was replaced under the pointer.
  const jobAt = (event) => event.target.closest("[data-job]")?.dataset.job ?? null;
  document.addEventListener("mouseover", (event) => event.target.closest(".plot") || light(jobAt(event)));
  document.addEventListener("focusin", (event) => jobAt(event) && light(jobAt(event)));
  if (jobs.some((job) => !isOver(job))) followJobs(scrubber, redraw);
  await pool(jobs, MAX_CONCURRENT_REQUESTS, (job) => job.metrics.load().catch(() => {}));
  await drawVerdicts();
  await explain(jobs);
}
