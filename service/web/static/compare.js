// Jobs beside each other: curves on one chart, the settings that differ, samples of the same epoch.
import { $, describe, h, metric, throttle, when } from "./dom.js";
import { call, listen } from "./api.js";
import { Chart } from "./chart.js";
import { Settings, groupOf, places, rank, span } from "./curves.js";
import { formatOf } from "./format.js";
import { Samples } from "./samples.js";

const jobs = JSON.parse($("#jobs").textContent);
const BEST = [["val_accuracy", Math.max], ["val_loss", Math.min], ["frechet_distance", Math.min]];

// A job's colour comes from its id: it stays when others come and go, unless two want the same one.
function colours() {
  const taken = new Set();
  for (const job of jobs.toSorted((a, b) => (a.id < b.id ? -1 : 1))) {
    let index = [...job.id].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 8191, 7) % 8;
    while (taken.has(index)) index = taken.size < 8 ? (index + 1) % 8 : index + 8;
    taken.add(index);
    job.index = index;
  }
}

const titleOf = (job) => job.name || `${job.kind} ${job.id.slice(-6).toLowerCase()}`;
const labels = () => {
  const names = jobs.map(titleOf);
  return jobs.map((job, index) => (names.filter((name) => name === names[index]).length > 1 ? `${names[index]} (${job.id.slice(-6).toLowerCase()})` : names[index]));
};

function drawHeads() {
  const names = labels();
  $("#compared").replaceChildren(
    ...jobs.map((job, index) => {
      job.label = names[index];
      const others = jobs.filter((other) => other !== job).map((other) => other.id);
      return h(
        "li",
        { class: "card" },
        h("span", { class: `swatch series-${(job.index % 8) + 1}` }),
        h("a", { href: job.urls.page }, job.label),
        h("span", { class: `status ${job.status}` }, job.status),
        others.length > 0 ? h("a", { class: "button slim quiet", href: `/ui/compare?jobs=${others.join(",")}`, "aria-label": `Leave ${job.label} out`, title: "Leave it out" }, "✕") : null,
      );
    }),
  );
}

const charts = new Map();
let settings;

function drawCurves() {
  const { axis, smoothing } = settings.values;
  const names = new Set(jobs.flatMap((job) => Object.keys(job.table?.series ?? {})));
  for (const name of [...names].sort((a, b) => rank(groupOf(a)[0]) - rank(groupOf(b)[0]))) {
    const having = jobs.filter((job) => job.table?.series[name]?.some((value) => value !== null));
    if (!having.length) continue;
    if (!charts.has(name)) {
      charts.set(name, new Chart(name, describe(name).label));
      $(groupOf(name)[2] ? "#curves .main" : "#curves .others").append(charts.get(name).element);
    }
    const series = having.map((job) => ({ name: job.id, label: job.label, x: places(job.table, axis), y: job.table.series[name], index: job.index }));
    charts.get(name).show({ series, smoothing, axis, range: span(series.map((item) => item.x), axis), format: formatOf(name) });
  }
  $("#more-curves").hidden = !$("#curves .others").children.length;
}

// A document as lines: its pointer, and what stands there.
function flat(document, pointer = "") {
  if (typeof document !== "object" || document === null) return [[pointer, document]];
  const entries = Object.entries(document);
  return entries.length ? entries.flatMap(([name, part]) => flat(part, pointer ? `${pointer}.${name}` : name)) : [[pointer, Array.isArray(document) ? "[]" : "{}"]];
}

function drawSettings() {
  const lines = jobs.map((job) => new Map(flat({ ...job.resolved, name: undefined, tags: job.tags.join(", ") })));
  const pointers = [...new Set(lines.flatMap((line) => [...line.keys()]))].filter((pointer) => pointer !== "name");
  const show = (value) => (value === undefined ? "–" : value === null ? "none" : String(value));
  const rows = pointers.map((pointer) => [pointer, lines.map((line) => show(line.get(pointer)))]);
  const differing = rows.filter(([, values]) => new Set(values).size > 1);
  const shown = $("#identical").checked ? rows : differing;
  const best = BEST.filter(([name]) => jobs.some((job) => job.table?.series[name])).map(([name, better]) => {
    const known = jobs.map((job) => (job.table?.series[name] ?? []).filter((value) => value !== null));
    return [`best ${describe(name).label}`, known.map((values) => (values.length ? metric(name, values.reduce((a, b) => better(a, b))) : "–"))];
  });
  const line = ([name, values], isSetting) => h("tr", {}, h("th", { scope: "row" }, isSetting ? h("code", {}, name) : name), values.map((value) => h("td", {}, value)));
  $("#differences thead").replaceChildren(h("tr", {}, h("th", { scope: "col" }, "Setting"), jobs.map((job) => h("th", { scope: "col" }, h("span", { class: `swatch series-${(job.index % 8) + 1}` }), " ", job.label))));
  $("#differences tbody").replaceChildren(line(["created", jobs.map((job) => when(job.created_at))]), ...best.map((row) => line(row)), ...shown.map((row) => line(row, true)));
  $("#same").hidden = differing.length > 0;
}

function wireSamples() {
  const epochs = [...new Set(jobs.flatMap((job) => job.samples))].sort((a, b) => a - b);
  $("#samples").hidden = epochs.length === 0;
  const frames = jobs.map((job) => ({ job, image: h("img", { class: "pixels", alt: "" }), text: h("span", { class: "small muted" }) }));
  $("#beside").replaceChildren(h("img", { hidden: true, alt: "" }), ...frames.map(({ job, image, text }) => h("figure", {}, image, h("figcaption", { class: "small" }, h("span", { class: `swatch series-${(job.index % 8) + 1}` }), ` ${job.label} `, text))));
  // The slider goes through all epochs that any job has; each shows its last picture up to there.
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

function follow(scrubber) {
  const find = (news) => jobs.find((job) => job.id === news.job);
  const draw = throttle(500, drawCurves);
  listen(() => `/stream?jobs=${jobs.map((job) => job.id).join(",")}`, {
    metrics: (news) => {
      const { table } = find(news);
      if (!table || news.epoch <= (table.epochs.at(-1) ?? 0)) return;
      for (const name of Object.keys(news.values)) table.series[name] ??= table.epochs.map(() => null);
      table.epochs.push(news.epoch);
      table.seconds.push(news.seconds);
      for (const [name, column] of Object.entries(table.series)) column.push(news.values[name] ?? null);
      draw();
    },
    sample: (news) => {
      find(news).samples.push(news.epoch);
      $("#samples").hidden = false;
      scrubber.add(news.epoch);
    },
    status: (news) => {
      find(news).status = news.status;
      drawHeads();
    },
    end: (news) => {
      find(news).status = news.status;
      drawHeads();
      drawSettings();
    },
  });
}

if (jobs.length) {
  colours();
  drawHeads();
  settings = new Settings($("#chart-settings"), drawCurves);
  drawSettings();
  const scrubber = wireSamples();
  await Promise.all(jobs.map(async (job) => (job.table = await call(job.urls.metrics).catch(() => null))));
  drawCurves();
  drawSettings();
  $("#identical").addEventListener("change", drawSettings);
  if (jobs.some((job) => !["succeeded", "failed", "cancelled"].includes(job.status))) follow(scrubber);
}
