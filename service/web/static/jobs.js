// The list of jobs: a stream updates it, and further pages are loaded on scrolling.
import { $, $$, announce, capital, counted, debounce, h, throttle } from "./dom.js";
import { call, listen, onRestored, pool } from "./api.js";
import { UrlState } from "./url-state.js";
import { afterEpoch, bestOf, csvColumns } from "./cells.js";
import { offerColumns } from "./column-chooser.js";
import { showFilter } from "./filters.js";
import { isOver } from "./job-facts.js";
import { latest, turns } from "./latest.js";
import { editNote, saveStar } from "./notes.js";
import { offerViews } from "./saved-views.js";
import { COMPARED, SelectedJobs } from "./selection.js";
import { JobTable } from "./table.js";

const STATUSES = ["running", "queued", "paused", "succeeded", "failed", "cancelled"];
const GROUPS = 500;
const FIRST_ROWS = 30; // fill a screen; the page itself contains as many
const SINGLY = 20; // maximum number of changed jobs beyond the first page that are reloaded individually; more are reloaded page by page
const MOVED_MOST = 500; // maximum number of rows that are kept sorted while training changes the order
const STAYS = /created_at|priority|name/; // sorting that training does not change

const first = JSON.parse($("#first").textContent);
const urlState = new UrlState(location.search, first.columns);
const jobs = new Map(); // by id
const turn = turns(); // one for each query: a change of the filter, the order, …
const changed = new Set(); // ids of jobs with events since the last refresh
const saving = new Map(); // id -> changes of a job that are being saved and already shown
let sections = []; // one, or one for each group: { key, group, by, open, ids, cursor, loading }
let isNewest = () => true; // whether the page shows the result of the latest query
let counts = {};
let stopped = 0; // number of cancelled jobs that their sweeps stopped
let columns = [];
let parents = {};
let sweeps = {}; // by id, those whose jobs are collapsed into one row
const collapsedSections = new Map(); // sweep id -> the section of its jobs, below that row
let moreGroups = false;
let edits = 0; // a response to a request from before an edit may not contain it

const selection = new SelectedJobs(jobs, { shown: () => shownIds(), draw, forget, renew: () => renew() });
const table = new JobTable($("#list table"), {
  select: (id, isRange) => selection.toggle(id, isRange),
  star,
  note,
  tag: (tag) => change({ tag: [...new Set([...urlState.tag, tag])] }),
  toggle,
  sort: sortBy,
  all: (on) => selection.toggleAll(on),
  near: (section) => load(section),
});

// loading: identifies the current request; responses to earlier ones are dropped
const section = (group = null, by = "") => ({ key: group ? `${by}:${group.value ?? ""}:${group.value === null}` : "all", group, by, open: !group, ids: [], cursor: null, loading: null });
const shownIds = () => [...new Set(listed()[0].flatMap((item) => (item.kind === "job" ? [item.id] : [])))];
const allSections = () => [...sections, ...collapsedSections.values()];

// The section of a collapsed sweep for the job that represents it; null for any other job.
function collapsedSection(job) {
  const sweep = urlState.collapsesSweeps && job.sweep_id ? sweeps[job.sweep_id] : null;
  if (!sweep) return null;
  if (!collapsedSections.has(sweep.id)) collapsedSections.set(sweep.id, section({ value: sweep.id, query: { sweep: sweep.id } }, "fold"));
  return Object.assign(collapsedSections.get(sweep.id), { sweep });
}

const takeCounts = (page) => ({ counts, stopped_by_sweep: stopped } = page);

function take(page) {
  for (const job of page.data) jobs.set(job.id, { ...job, ...saving.get(job.id) });
  columns = page.columns;
  parents = { ...parents, ...page.parents };
  sweeps = { ...sweeps, ...page.sweeps };
  if (page.counts) takeCounts(page);
  return page.data.map((job) => job.id);
}

// Loads one more page of a section; drops the response if the query has changed since.
async function load(one) {
  if (one.loading || one.cursor === null) return;
  const mine = (one.loading = Symbol("request"));
  try {
    const page = await call(urlState.list({ limit: 100, ...(one.cursor && { cursor: one.cursor }) }, one.group?.query));
    if (one.loading !== mine) return;
    one.ids = [...new Set([...one.ids, ...take(page)])];
    one.cursor = page.next_cursor;
  } catch (error) {
    if (one.loading !== mine) return;
    announce(error.message, "error");
    one.cursor = null;
  }
  one.loading = null;
  draw();
}

// Empties a section; if it is open, it is loaded from its beginning.
function restart(one) {
  Object.assign(one, { ids: [], cursor: one.open ? "" : null, loading: null });
  if (one.open) load(one);
}

function toggle(one) {
  one.open = !one.open;
  restart(one); // jobs that were loaded before it was closed may be outdated
  draw();
}

// Reloads the first page of a section for new and deleted jobs; later pages stay loaded.
async function reload(one, isCurrent) {
  const limit = Math.min(100, Math.max(50, one.ids.length));
  const isMany = one.ids.slice(limit).filter((id) => changed.has(id)).length > SINGLY;
  const most = Math.max(STAYS.test(urlState.sort) ? limit : Math.min(one.ids.length, MOVED_MOST), isMany ? one.ids.findLastIndex((id) => changed.has(id)) + 1 : 0);
  const ids = [];
  let page = null;
  do {
    const more = one.group ? {} : { counts: true };
    page = await call(urlState.list({ limit, ...more, ...(page && { cursor: page.next_cursor }) }, one.group?.query)).catch(() => null);
    if (page === null || !isCurrent()) return false;
    ids.push(...take(page));
  } while (page.has_more && ids.length < most);
  const fresh = new Set(ids);
  const rest = page.has_more && one.ids.length > ids.length ? one.ids : [];
  // A further page that is being loaded would not follow these.
  if (!rest.length) Object.assign(one, { cursor: page.next_cursor, loading: null });
  const further = rest.slice(rest.findLastIndex((id) => fresh.has(id)) + 1).filter((id) => !fresh.has(id));
  one.ids = [...ids, ...further];
  await pool(further.filter((id) => changed.has(id)), 4, (id) => reloadJob(one, id, isCurrent));
  return isCurrent();
}

// Reloads a job beyond the first page of its section, and removes it if it no longer matches the filter.
async function reloadJob(one, id, isCurrent) {
  const page = await call(urlState.list({ q: id, limit: 10 }, one.group?.query)).catch(() => null);
  if (page === null || !isCurrent()) return;
  if (!take(page).includes(id)) one.ids = one.ids.filter((other) => other !== id);
}

// Reloads the rows, one refresh at a time.
const renew = throttle(700, latest(async () => {
  const [isAsked, before, told] = [isNewest, edits, new Set(changed)];
  const isCurrent = () => isAsked() && edits === before;
  if (urlState.group && !(await findGroups(isCurrent))) return;
  for (const one of allSections()) {
    if (one.open && one.cursor !== "" && !(await reload(one, isCurrent))) return;
  }
  for (const id of told) changed.delete(id);
  draw();
}));

// Reloads the groups; open ones stay open.
async function findGroups(isCurrent) {
  const [found, page] = await Promise.all([call(urlState.groups(GROUPS)), call(urlState.list({ limit: 1, counts: true }))]).catch((error) => (isCurrent() && announce(error.message, "error"), []));
  if (!page || !isCurrent()) return false;
  takeCounts(page);
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
  const isCurrent = (isNewest = turn());
  for (const one of allSections()) one.loading = null; // pending responses belong to an earlier query
  if (urlState.group) {
    if (!(await findGroups(isCurrent))) return;
    for (const one of sections) restart(one);
  } else {
    const page = await call(urlState.list({ limit: FIRST_ROWS, counts: true })).catch((error) => isCurrent() && announce(error.message, "error"));
    if (!page || !isCurrent()) return;
    sections = [{ ...section(), ids: take(page), cursor: page.next_cursor }];
    for (const one of collapsedSections.values()) restart(one);
  }
  scrollTo(0, 0);
  draw();
}
const findSoon = debounce(120, find);

function change(news) {
  Object.assign(urlState, news);
  history.replaceState(null, "", urlState.query ? `/?${urlState.query}` : "/");
  drawFilter();
  if (!("columns" in news)) selection.ids.clear();
  isNewest = turn();
  if ("q" in news) findSoon(); // on each keystroke
  else find();
}

function sortBy(sort, column) {
  const falls = urlState.sort.startsWith("-");
  if (urlState.sort.replace(/^-/, "") === sort) return change({ sort: falls ? sort : `-${sort}` });
  // Numbers and times start with the best, newest or largest; text starts with A.
  const rises = !column || column.goal === "minimize" || ["text", "job"].includes(column.type);
  return change({ sort: rises ? sort : `-${sort}` });
}

function draw() {
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
  const matching = urlState.status.length ? urlState.status.reduce((sum, status) => sum + (counts[status] ?? 0), 0) : total;
  const ids = shownIds();
  const loaded = ids.map((id) => jobs.get(id));
  const isEmpty = urlState.group ? !sections.length : !sections[0]?.ids.length;
  $("#view").hidden = total === 0 && !urlState.isFiltered;
  $("#list").hidden = isEmpty;
  $("#nothing").hidden = !isEmpty || (total === 0 && !urlState.isFiltered);
  $("#welcome").hidden = total > 0 || urlState.isFiltered;
  $("#more").textContent = listStatus(matching);
  for (const button of $$("#statuses button")) {
    const { status } = button.dataset;
    button.setAttribute("aria-pressed", status ? urlState.status.includes(status) : !urlState.status.length);
    $(".count", button).textContent = `${status ? (counts[status] ?? 0) : total}${status === "cancelled" && stopped ? `, ${stopped} by ${stopped === 1 ? "a sweep" : "sweeps"}` : ""}`;
    button.hidden = status !== "" && !counts[status] && !urlState.status.includes(status);
  }
  $("#csv").href = urlState.list({ format: "csv", columns: csvColumns(urlState.columns, loaded.length ? loaded : [...jobs.values()]).join(",") });
  selection.draw(ids, table.all);
  table.setColumns(columns, urlState.sort);
  const [items, ends] = listed();
  table.show(items, ends, jobs, selection.ids, bestOf(columns, loaded), parents);
}

function listStatus(matching) {
  const jobsOf = (count) => counted(count, "job");
  if (urlState.group) return `${counted(sections.length, "group")}, ${jobsOf(matching)}${moreGroups ? "; older groups are not shown: narrow the search" : ""}`;
  const loaded = sections[0]?.ids.reduce((sum, id) => sum + (collapsedSection(jobs.get(id))?.sweep.jobs ?? 1), 0);
  return sections[0]?.cursor ? `${loaded} loaded of ${matching}; more come as you scroll` : jobsOf(loaded);
}

// The rows of the table, and the rows after which more can be loaded.
function listed() {
  const [items, ends] = [[], []];
  const list = (one) => {
    for (const id of one.ids) {
      const collapsed = one.group ? null : collapsedSection(jobs.get(id));
      items.push(collapsed ? { key: `group ${collapsed.key}`, kind: "group", section: collapsed } : { key: `${one.key} ${id}`, kind: "job", id });
      if (collapsed?.open) list(collapsed);
    }
    if (one.cursor !== null) ends.push({ index: items.length, section: one });
  };
  for (const one of sections) {
    if (one.group) items.push({ key: `group ${one.key}`, kind: "group", section: one });
    if (one.open) list(one);
  }
  return [items, ends];
}

function amend(id, news) {
  const job = jobs.get(id);
  if (job) jobs.set(id, { ...job, ...news });
  draw();
}

// Handles a saved change. Responses to older requests are dropped and requested again.
function saved(id, news) {
  edits += 1;
  amend(id, news);
  renew();
}

async function star(id) {
  if (saving.has(id)) return;
  const job = jobs.get(id);
  saving.set(id, { starred: !job.starred });
  amend(id, saving.get(id)); // optimistically; the response decides
  const starred = await saveStar(job, !job.starred);
  saving.delete(id);
  saved(id, { starred });
}

async function note(id) {
  const text = await editNote(jobs.get(id));
  if (text !== undefined) saved(id, { note: text });
}

const titles = { parent: (id) => parents[id], sweep: (id) => sweeps[id]?.title };
const drawFilter = () => showFilter(urlState, titles, change);

function forget(id) {
  for (const one of allSections()) one.ids = one.ids.filter((other) => other !== id);
}

function receive(news) {
  const job = jobs.get(news.job);
  if (!job) return;
  const change = {};
  if (news.type === "metrics") {
    change.metrics = news.values;
    change.columns = afterEpoch(columns, job.columns, news.values);
    if (!STAYS.test(urlState.sort)) renew();
  }
  if ("fraction" in news && !isOver(job)) {
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
      { type: "button", dataset: { status }, onclick: () => change({ status: status && !urlState.status.includes(status) ? [status] : [] }) },
      status ? capital(status) : "All",
      h("span", { class: "count" }),
    ),
  ),
);
drawFilter();
draw();
document.documentElement.dataset.ready = Math.round(performance.now());

$("#filters").addEventListener("submit", (event) => event.preventDefault());
$("#filters").addEventListener("input", ({ target }) => change({ [target.name]: target.value }));
$("#starred").addEventListener("click", () => change({ starred: urlState.starred ? "" : "true" }));
$("#show-all").addEventListener("click", () => change({ q: "", kind: "", name: "", preset: "", dataset: "", spec: "", parent: "", sweep: "", starred: "", tag: [], without: [], status: [] }));
$("#help").addEventListener("click", () => $("#keys").showModal());
offerViews(() => urlState.query);
offerColumns({
  columns: () => urlState.columns,
  defaults: first.columns,
  known: () => columns,
  address: () => `/jobs/columns?${urlState.parameters()}`,
  change: (names) => change({ columns: names }),
});
const onlyReads = document.body.classList.contains("only-reads");
onRestored(() => $$("[data-start]").forEach((button) => (button.disabled = false)));
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
  const isTyping = document.activeElement.matches("input:not([type=checkbox]), select, textarea");
  if (event.key === "Escape") {
    if (isTyping) document.activeElement.blur();
    else selection.act("none");
  }
  if (isTyping) return;
  const here = table.current();
  const keys = {
    "/": () => $("#filters [name=q]").focus(),
    n: () => onlyReads || location.assign("/ui/new"),
    j: () => table.move(1),
    k: () => table.move(-1),
    x: () => here && selection.toggle(here, false),
    s: () => here && !onlyReads && star(here),
    e: () => here && !onlyReads && note(here),
    c: () => selection.ids.size > 1 && selection.ids.size <= COMPARED && selection.act("compare"),
    "?": () => $("#keys").showModal(),
  };
  if (!(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});

const renewJob = (news) => {
  changed.add(news.job);
  renew();
};
listen(() => "/stream", {
  // After a reconnect, the state of unfinished jobs is unknown.
  snapshot() {
    for (const [id, job] of jobs) if (!isOver(job)) changed.add(id);
    renew();
  },
  status: renewJob,
  end: renewJob,
  health: renewJob,
  metrics: receive,
  progress: receive,
});
setInterval(() => {
  // Relative times ("5 min ago") are updated.
  for (const id of shownIds()) jobs.set(id, { ...jobs.get(id) });
  table.later();
}, 20_000);
setInterval(async () => {
  if (document.hidden) return;
  const workers = await call("/workers").catch(() => null);
  if (workers) $("#no-worker").hidden = workers.data.length > 0;
}, 15_000);
