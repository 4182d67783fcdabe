// The list of jobs: one stream keeps it fresh, pages come as one scrolls.
import { $, $$, announce, debounce, h, throttle } from "./dom.js";
import { confirmed, onEach } from "./acting.js";
import { call, listen } from "./api.js";
import { Asked } from "./asked.js";
import { afterEpoch, bestOf, csvColumns } from "./cells.js";
import { offerColumns } from "./column-chooser.js";
import { editNote, toggleStar } from "./notes.js";
import { isOver } from "./rows.js";
import { offerViews } from "./saved-views.js";
import { JobTable } from "./table.js";

const STATUSES = ["running", "queued", "paused", "succeeded", "failed", "cancelled"];
const COMPARED = 200; // the most jobs that one comparison takes
const GROUPS = 500;
const MOVED_MOST = 500; // so many rows are kept right where training moves jobs to other places
const STAYS = /created_at|priority|name/; // orders in which it does not
const TERMS = { tag: "Tag", name: "Name", preset: "Preset", dataset: "Dataset", spec: "Spec", parent: "Parent", without: "Without" };

const first = JSON.parse($("#first").textContent);
const asked = new Asked(location.search, first.columns);
const jobs = new Map(); // by id
const chosen = new Set();
let sections = []; // one, or one for each group: { key, group, by, open, ids, cursor, loading }
let counts = {};
let columns = [];
let parents = {};
let moreGroups = false;
let lastChosen = null;

const table = new JobTable($("#list table"), {
  choose,
  star: (id) => toggleStar(jobs.get(id), (news) => amend(id, news)),
  note,
  tag: (tag) => change({ tag: [...new Set([...asked.tag, tag])] }),
  toggle,
  sort: sortBy,
  all(on) {
    for (const id of shownIds()) on ? chosen.add(id) : chosen.delete(id);
    draw();
  },
  near: (section) => load(section),
});

const section = (group = null, by = "") => ({ key: group ? `${by}:${group.value ?? ""}:${group.value === null}` : "all", group, by, open: !group, ids: [], cursor: null, loading: false });
const shownIds = () => [...new Set(sections.flatMap((one) => (one.open ? one.ids : [])))];

function take(page) {
  for (const job of page.data) jobs.set(job.id, job);
  columns = page.columns;
  parents = { ...parents, ...page.parents };
  if (page.counts) counts = page.counts;
  return page.data.map((job) => job.id);
}

// One page more of a section; the answer to a question that was changed meanwhile is thrown away.
async function load(one) {
  if (one.loading || one.cursor === null) return;
  one.loading = true;
  const sent = asked.query;
  try {
    const page = await call(asked.list({ limit: 100, ...(one.cursor && { cursor: one.cursor }) }, one.group?.query));
    if (sent !== asked.query) return;
    one.ids = [...new Set([...one.ids, ...take(page)])];
    one.cursor = page.next_cursor;
  } catch (error) {
    announce(error.message, "error");
    one.cursor = null;
  } finally {
    one.loading = false;
  }
  draw();
}

function toggle(one) {
  one.open = !one.open;
  if (one.open && !one.ids.length) one.cursor = ""; // from the beginning
  if (one.open) load(one);
  draw();
}

// The first page of a section anew, for what has come and what is gone; what lies behind it stays loaded.
async function reload(one, sent) {
  const limit = Math.min(100, Math.max(50, one.ids.length));
  const most = STAYS.test(asked.sort) ? limit : Math.min(one.ids.length, MOVED_MOST);
  const ids = [];
  let page = null;
  do {
    const more = one.group ? {} : { counts: true };
    page = await call(asked.list({ limit, ...more, ...(page && { cursor: page.next_cursor }) }, one.group?.query)).catch(() => null);
    if (page === null || sent !== asked.query) return false;
    ids.push(...take(page));
  } while (page.has_more && ids.length < most);
  const fresh = new Set(ids);
  const rest = page.has_more && one.ids.length > ids.length ? one.ids : [];
  if (!rest.length) one.cursor = page.next_cursor;
  one.ids = [...ids, ...rest.slice(rest.findLastIndex((id) => fresh.has(id)) + 1).filter((id) => !fresh.has(id))];
  return true;
}

const renew = throttle(700, async () => {
  const sent = asked.query;
  if (asked.group && !(await findGroups(sent))) return;
  for (const one of sections) {
    if (one.open && one.cursor !== "" && !(await reload(one, sent))) return;
  }
  draw();
});

// The groups anew; those that were open stay so.
async function findGroups(sent) {
  const [found, page] = await Promise.all([call(asked.groups(GROUPS)), call(asked.list({ limit: 1, counts: true }))]).catch((error) => (announce(error.message, "error"), []));
  if (!page || sent !== asked.query) return false;
  counts = page.counts;
  takeGroups(found);
  return true;
}

function takeGroups(found) {
  columns = found.columns;
  moreGroups = found.has_more;
  const before = new Map(sections.map((one) => [one.key, one]));
  sections = found.data.map((group) => {
    const now = section(group, found.by);
    const old = before.get(now.key);
    return old ? Object.assign(old, { group }) : now;
  });
}

async function find() {
  const sent = asked.query;
  if (asked.group) {
    if (!(await findGroups(sent))) return;
    for (const one of sections) {
      Object.assign(one, { ids: [], cursor: one.open ? "" : null });
      if (one.open) load(one);
    }
  } else {
    const page = await call(asked.list({ limit: 50, counts: true })).catch((error) => announce(error.message, "error"));
    if (!page || sent !== asked.query) return;
    sections = [{ ...section(), ids: take(page), cursor: page.next_cursor }];
  }
  scrollTo(0, 0);
  draw();
}
const findSoon = debounce(120, find);

function change(news) {
  Object.assign(asked, news);
  history.replaceState(null, "", asked.query ? `/?${asked.query}` : "/");
  showFilter();
  if (!("columns" in news)) chosen.clear();
  if ("q" in news) findSoon(); // while one types
  else find();
}

function sortBy(sort, column) {
  const falls = asked.sort.startsWith("-");
  if (asked.sort.replace(/^-/, "") === sort) return change({ sort: falls ? sort : `-${sort}` });
  // The best, the newest and the furthest come first; words begin with A.
  const rises = !column || column.goal === "minimize" || ["text", "job"].includes(column.type);
  return change({ sort: rises ? sort : `-${sort}` });
}

function draw() {
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
  const wanted = asked.status.length ? asked.status.reduce((sum, status) => sum + (counts[status] ?? 0), 0) : total;
  const ids = shownIds();
  const loaded = ids.map((id) => jobs.get(id));
  for (const id of chosen) if (!ids.includes(id)) chosen.delete(id);
  const isEmpty = asked.group ? !sections.length : !ids.length;
  $("#view").hidden = total === 0 && !asked.isFiltered;
  $("#list").hidden = isEmpty;
  $("#nothing").hidden = !isEmpty || (total === 0 && !asked.isFiltered);
  $("#welcome").hidden = total > 0 || asked.isFiltered;
  $("#more").textContent = told(ids.length, wanted);
  for (const button of $$("#statuses button")) {
    const { status } = button.dataset;
    button.setAttribute("aria-pressed", status ? asked.status.includes(status) : !asked.status.length);
    $(".count", button).textContent = status ? (counts[status] ?? 0) : total;
    button.hidden = status !== "" && !counts[status] && !asked.status.includes(status);
  }
  $("#csv").href = asked.list({ format: "csv", columns: csvColumns(asked.columns, loaded).join(",") });
  drawSelection();
  table.setColumns(columns, asked.sort);
  const [items, ends] = listed();
  table.show(items, ends, jobs, chosen, bestOf(columns, loaded), parents);
}

function told(loaded, wanted) {
  const jobsOf = (count) => `${count} ${count === 1 ? "job" : "jobs"}`;
  if (asked.group) return `${sections.length} ${sections.length === 1 ? "group" : "groups"}, ${jobsOf(wanted)}${moreGroups ? "; older groups are not shown: narrow the search" : ""}`;
  return sections[0]?.cursor ? `${loaded} loaded of ${wanted}; more come as you scroll` : jobsOf(loaded);
}

// What the table shows, row by row, and after which rows there is more to load.
function listed() {
  const [items, ends] = [[], []];
  for (const one of sections) {
    if (one.group) items.push({ key: `group ${one.key}`, kind: "group", section: one });
    if (!one.open) continue;
    for (const id of one.ids) items.push({ key: `${one.key} ${id}`, kind: "job", id });
    if (one.cursor !== null) ends.push({ index: items.length, section: one });
  }
  return [items, ends];
}

function drawSelection() {
  const those = [...chosen].map((id) => jobs.get(id));
  const can = (action) => those.some((job) => job.allowed_actions.includes(action));
  const reasons = {
    compare: those.length < 2 ? "Select at least two jobs to compare." : those.length > COMPARED ? `Compare takes at most ${COMPARED} jobs.` : "",
    cancel: can("cancel") ? "" : "Nothing to cancel: all have ended.",
    delete: can("delete") ? "" : "Nothing to delete: only jobs that have ended can be.",
  };
  $("#selection").hidden = those.length === 0;
  $("#selection strong").textContent = `${those.length} selected`;
  for (const [what, reason] of Object.entries(reasons)) {
    $(`[data-do="${what}"]`).disabled = reason !== "";
    $(`[data-do="${what}"]`).title = reason;
  }
  $("#why").textContent = Object.values(reasons).filter(Boolean).join(" ");
  const all = shownIds().length;
  table.all.checked = those.length > 0 && those.length === all;
  table.all.indeterminate = those.length > 0 && those.length < all;
}

function choose(id, isRange) {
  const ids = shownIds();
  const wanted = !chosen.has(id);
  const [from, to] = [ids.indexOf(isRange && lastChosen ? lastChosen : id), ids.indexOf(id)].sort((a, b) => a - b);
  for (const item of ids.slice(Math.max(from, 0), to + 1)) wanted ? chosen.add(item) : chosen.delete(item);
  lastChosen = id;
  draw();
}

function amend(id, news) {
  const job = jobs.get(id);
  if (job) jobs.set(id, { ...job, ...news });
  draw();
}

async function note(id) {
  const text = await editNote(jobs.get(id));
  if (text !== undefined) amend(id, { note: text });
}

function showFilter() {
  const order = $("#filters [name=sort]");
  if (![...order.options].some((option) => option.value === asked.sort)) {
    const words = asked.sort.replace(/^-/, "").replace(":", " ").replaceAll("_", " ");
    order.append(h("option", { value: asked.sort }, `${words} ${asked.sort.startsWith("-") ? "↓" : "↑"}`));
  }
  for (const name of ["q", "kind", "sort", "group"]) {
    const field = $(`#filters [name=${name}]`);
    if (field.value !== asked[name]) field.value = asked[name];
  }
  $("#starred").setAttribute("aria-pressed", asked.starred === "true");
  const term = (name, value) => {
    const shown = name === "parent" ? (parents[value] ?? value.slice(-6).toLowerCase()) : name === "spec" ? value.replace("sha256:", "").slice(0, 10) : value;
    const clear = Array.isArray(asked[name]) ? () => asked[name].filter((other) => other !== value) : () => "";
    return h("button", { class: "slim", type: "button", "aria-label": `Remove the filter ${TERMS[name]}: ${shown}`, onclick: () => change({ [name]: clear() }) }, `${TERMS[name]}: ${shown} ✕`);
  };
  $("#terms").replaceChildren(...Object.keys(TERMS).flatMap((name) => [asked[name]].flat().filter(Boolean).map((value) => term(name, value))));
}

async function act(what) {
  const those = [...chosen].map((id) => jobs.get(id)).filter((job) => what === "compare" || what === "none" || job.allowed_actions.includes(what));
  if (what === "none") chosen.clear();
  else if (what === "compare") return location.assign(`/ui/compare?jobs=${[...chosen].join(",")}`);
  else if (what === "cancel") announce(`${await onEach(those, (job) => call(`${job.urls.self}/cancel`, { method: "POST" }))} cancelled`, "good");
  else if (what === "delete" && (await confirmed(those, chosen.size - those.length))) {
    const forget = (job) => sections.forEach((one) => (one.ids = one.ids.filter((id) => id !== job.id)));
    announce(`${await onEach(those, (job) => call(job.urls.self, { method: "DELETE" }).then(() => forget(job)))} deleted`, "good");
    chosen.clear();
  }
  draw();
  if (what === "cancel" || what === "delete") renew();
}

function heard(news) {
  const job = jobs.get(news.job);
  if (!job) return;
  const change = {};
  if (news.type === "metrics") {
    change.metrics = news.values;
    change.columns = afterEpoch(columns, job.columns, news.values);
    if (!STAYS.test(asked.sort)) renew();
  }
  if ("fraction" in news) {
    const { epoch, epochs, step, steps, fraction, eta_seconds } = news;
    change.progress = { epoch, epochs, step, steps, fraction, eta_seconds };
  }
  jobs.set(news.job, { ...job, ...change });
  table.later();
}

const firstIds = take(first.list);
if (first.groups) takeGroups(first.groups);
else sections = [{ ...section(), ids: firstIds, cursor: first.list.next_cursor }];
$("#statuses").append(
  ...["", ...STATUSES].map((status) =>
    h(
      "button",
      { type: "button", dataset: { status }, onclick: () => change({ status: status && !asked.status.includes(status) ? [status] : [] }) },
      status ? status[0].toUpperCase() + status.slice(1) : "All",
      h("span", { class: "count" }),
    ),
  ),
);
showFilter();
draw();
document.documentElement.dataset.ready = Math.round(performance.now());

$("#filters").addEventListener("submit", (event) => event.preventDefault());
$("#filters").addEventListener("input", ({ target }) => change({ [target.name]: target.value }));
$("#starred").addEventListener("click", () => change({ starred: asked.starred ? "" : "true" }));
$("#show-all").addEventListener("click", () => change({ q: "", kind: "", name: "", preset: "", dataset: "", spec: "", parent: "", starred: "", tag: [], without: [], status: [] }));
$("#selection").addEventListener("click", (event) => {
  const what = event.target.closest("button")?.dataset.do;
  if (what) act(what);
});
$("#help").addEventListener("click", () => $("#keys").showModal());
offerViews(() => asked.query);
offerColumns({
  columns: () => asked.columns,
  defaults: first.columns,
  known: () => columns,
  address: () => `/jobs/columns?${asked.parameters()}`,
  change: (names) => change({ columns: names }),
});
for (const button of $$("[data-start]")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    const kind = button.dataset.start;
    try {
      const job = await call("/jobs", { method: "POST", body: { kind, name: `first ${kind}` } });
      location.assign(job.urls.page);
    } catch (error) {
      announce(error.message, "error");
      button.disabled = false;
    }
  });
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if (document.activeElement.matches("input")) document.activeElement.blur();
    else act("none");
  }
  if (document.activeElement.matches("input:not([type=checkbox]), select, textarea")) return;
  const here = table.current();
  const keys = {
    "/": () => $("#filters [name=q]").focus(),
    n: () => location.assign("/ui/new"),
    j: () => table.move(1),
    k: () => table.move(-1),
    x: () => here && choose(here, false),
    s: () => here && table.on.star(here),
    e: () => here && note(here),
    c: () => chosen.size > 1 && chosen.size <= COMPARED && act("compare"),
    "?": () => $("#keys").showModal(),
  };
  if (!(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});

listen(() => "/stream", {
  snapshot: renew,
  status: renew,
  end: renew,
  health: renew,
  metrics: heard,
  progress: heard,
});
setInterval(() => {
  // Times that are told as "so long ago" move on.
  for (const id of shownIds()) if (!isOver(jobs.get(id))) jobs.set(id, { ...jobs.get(id) });
  table.later();
}, 20_000);
setInterval(async () => {
  if (document.hidden) return;
  const workers = await call("/workers").catch(() => null);
  if (workers) $("#no-worker").hidden = workers.data.length > 0;
}, 15_000);
