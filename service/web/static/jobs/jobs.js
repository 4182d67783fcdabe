// The list of jobs: a stream updates it, and further pages are loaded on scrolling.
import { $, $$, announce, capital, counted, debounce, h, throttle } from "../common/dom.js";
import { call, listen, onRestored, pool } from "../common/api.js";
import { UrlState } from "./url-state.js";
import { afterEpoch, bestOf, csvColumns } from "./cells.js";
import { offerColumns } from "./column-chooser.js";
import { showFilter } from "./filters.js";
import { isOver } from "../common/job-facts.js";
import { latest, requestSequence } from "../common/latest.js";
import { editNote, saveStar } from "./notes.js";
import { afterPress } from "../common/press.js";
import { offerViews } from "./saved-views.js";
import { MAX_COMPARED, SelectedJobs } from "./selection.js";
import { JobTable } from "./table.js";

const STATUSES = ["running", "queued", "paused", "succeeded", "failed", "stopped", "cancelled"];
const MAX_GROUPS = 500;
const FIRST_ROWS = 30; // enough to fill a screen; the page itself contains the same number
// Maximum number of changed jobs beyond the first page that are reloaded one by one; more are reloaded page by page.
const MAX_SINGLE_RELOADS = 20;
const MAX_RESORTED_ROWS = 500; // maximum number of rows that are re-sorted while training changes the order
const STABLE_SORTS = /created_at|priority|name/; // sort keys whose order training does not change

const IMPEDIMENTS = new Set(["no_worker", "storage", "dataset", "memory"]); // reasons why no job at all starts
const FOREIGN_REFRESH_MS = 5000; // the stream has only one's own jobs

const initial = JSON.parse($("#first").textContent);
const urlState = new UrlState(location.search, initial.columns);
const jobs = new Map(); // by id
const nextQuery = requestSequence(); // a new query starts when the filter, the order, … changes
const changed = new Set(); // ids of jobs with events since the last refresh
const saving = new Map(); // id -> changes of a job that are shown already, while they are being saved
let sections = []; // one, or one for each group: { key, group, by, open, ids, cursor, loading }
let isNewest = () => true; // whether the page shows the result of the latest query
let counts = {};
let columns = [];
let parents = {};
let owners = {}; // id -> display name
let sweeps = {}; // id -> sweep whose jobs are collapsed into one row
const collapsedSections = new Map(); // sweep id -> the section of its jobs, below that row
let hasMoreGroups = false;
let edits = 0; // number of edits: a response to an earlier request may lack the latest one

const selection = new SelectedJobs(jobs, { shown: () => shownIds(), draw, forget, refresh: () => refreshRows() });
const table = new JobTable($("#list table"), {
  select: (id, isRange) => selection.toggle(id, isRange),
  star,
  note,
  tag: (tag) => change({ tag: [...new Set([...urlState.tag, tag])] }),
  toggle,
  sort: sortBy,
  all: (on) => selection.toggleAll(on),
  near: (section) => load(section),
  showsOwners: urlState.owner === "*",
  nameOf: (owner) => owners[owner] ?? owner,
});

// loading: identifies the current request; responses to earlier ones are dropped
const createSection = (group = null, by = "") => ({
  key: group ? `${by}:${group.value ?? ""}:${group.value === null}` : "all",
  group,
  by,
  open: !group,
  ids: [],
  cursor: null,
  loading: null,
});
const shownIds = () => [...new Set(visibleItems()[0].flatMap((item) => (item.kind === "job" ? [item.id] : [])))];
const allSections = () => [...sections, ...collapsedSections.values()];

// The section of a collapsed sweep for the job that represents it; null for any other job.
function collapsedSection(job) {
  const sweep = urlState.collapsesSweeps && job.sweep_id ? sweeps[job.sweep_id] : null;
  if (!sweep) return null;
  if (!collapsedSections.has(sweep.id)) {
    collapsedSections.set(sweep.id, createSection({ value: sweep.id, query: { sweep: sweep.id } }, "fold"));
  }
  return Object.assign(collapsedSections.get(sweep.id), { sweep });
}

function storePage(page) {
  for (const job of page.data) jobs.set(job.id, { ...job, ...saving.get(job.id) });
  columns = page.columns;
  parents = { ...parents, ...page.parents };
  owners = { ...owners, ...page.owners };
  sweeps = { ...sweeps, ...page.sweeps };
  if (page.counts) ({ counts } = page);
  return page.data.map((job) => job.id);
}

// Loads one more page of a section; drops the response if the query has changed since.
async function load(section) {
  if (section.loading || section.cursor === null) return;
  const request = (section.loading = Symbol("request"));
  try {
    const page = await call(
      urlState.list({ limit: 100, ...(section.cursor && { cursor: section.cursor }) }, section.group?.query),
    );
    if (section.loading !== request) return;
    section.ids = [...new Set([...section.ids, ...storePage(page)])];
    section.cursor = page.next_cursor;
  } catch (error) {
    if (section.loading !== request) return;
    announce(error.message, "error");
    section.cursor = null;
  }
  section.loading = null;
  draw();
}

// Empties a section; if it is open, it is loaded from its beginning.
function restart(section) {
  Object.assign(section, { ids: [], cursor: section.open ? "" : null, loading: null });
  if (section.open) load(section);
}

function toggle(section) {
  section.open = !section.open;
  restart(section); // jobs that were loaded before it was closed may be outdated
  draw();
}

// Reloads the first page of a section for new and deleted jobs; later pages stay loaded.
async function reload(section, isCurrent) {
  const limit = Math.min(100, Math.max(50, section.ids.length));
  const hasManyChanges = section.ids.slice(limit).filter((id) => changed.has(id)).length > MAX_SINGLE_RELOADS;
  const targetCount = Math.max(
    STABLE_SORTS.test(urlState.sort) ? limit : Math.min(section.ids.length, MAX_RESORTED_ROWS),
    hasManyChanges ? section.ids.findLastIndex((id) => changed.has(id)) + 1 : 0,
  );
  const ids = [];
  let page = null;
  do {
    const extra = section.group ? {} : { counts: true };
    page = await call(
      urlState.list({ limit, ...extra, ...(page && { cursor: page.next_cursor }) }, section.group?.query),
    ).catch(() => null);
    if (page === null || !isCurrent()) return false;
    ids.push(...storePage(page));
  } while (page.has_more && ids.length < targetCount);
  const loadedIds = new Set(ids);
  const previousIds = page.has_more && section.ids.length > ids.length ? section.ids : [];
  // A page that is still being loaded would not continue this list, so its response is dropped.
  if (!previousIds.length) Object.assign(section, { cursor: page.next_cursor, loading: null });
  const further = previousIds.slice(previousIds.findLastIndex((id) => loadedIds.has(id)) + 1).filter((id) =>
    !loadedIds.has(id)
  );
  section.ids = [...ids, ...further];
  await pool(further.filter((id) => changed.has(id)), 4, (id) => reloadJob(section, id, isCurrent));
  return isCurrent();
}

// Reloads one job beyond the first page of its section, or removes it if it no longer matches the filter.
async function reloadJob(section, id, isCurrent) {
  const page = await call(urlState.list({ q: id, limit: 10 }, section.group?.query)).catch(() => null);
  if (page === null || !isCurrent()) return;
  if (!storePage(page).includes(id)) section.ids = section.ids.filter((other) => other !== id);
}

// Reloads the rows, one refresh at a time.
const refreshRows = throttle(
  700,
  latest(async () => {
    const [isCurrentQuery, editsBefore, changedIds] = [isNewest, edits, new Set(changed)];
    const isCurrent = () => isCurrentQuery() && edits === editsBefore;
    if (urlState.group && !(await loadGroups(isCurrent))) return;
    for (const section of allSections()) {
      if (section.open && section.cursor !== "" && !(await reload(section, isCurrent))) return;
    }
    for (const id of changedIds) changed.delete(id);
    draw();
  }),
);

// Reloads the groups; open ones stay open.
async function loadGroups(isCurrent) {
  const [groups, page] = await Promise.all([
    call(urlState.groups(MAX_GROUPS)),
    call(urlState.list({ limit: 1, counts: true })),
  ]).catch((error) => (isCurrent() && announce(error.message, "error"), []));
  if (!page || !isCurrent()) return false;
  ({ counts } = page);
  applyGroups(groups);
  return true;
}

function applyGroups(groups) {
  columns = groups.columns;
  hasMoreGroups = groups.has_more;
  const existing = new Map(sections.map((section) => [section.key, section]));
  sections = groups.data.map((group) => {
    const created = createSection(group, groups.by);
    const previous = existing.get(created.key);
    return previous ? Object.assign(previous, { group }) : created;
  });
}

async function runQuery() {
  const isCurrent = (isNewest = nextQuery());
  for (const section of allSections()) section.loading = null; // pending responses belong to an earlier query
  if (urlState.group) {
    if (!(await loadGroups(isCurrent))) return;
    for (const section of sections) restart(section);
  } else {
    const page = await call(urlState.list({ limit: FIRST_ROWS, counts: true })).catch((error) =>
      isCurrent() && announce(error.message, "error")
    );
    if (!page || !isCurrent()) return;
    sections = [{ ...createSection(), ids: storePage(page), cursor: page.next_cursor }];
    for (const section of collapsedSections.values()) restart(section);
  }
  afterPress(() => scrollTo(0, 0));
  draw();
}
const runQuerySoon = debounce(120, runQuery);

function change(changes) {
  Object.assign(urlState, changes);
  history.replaceState(null, "", urlState.query ? `/?${urlState.query}` : "/");
  drawFilter();
  if (!("columns" in changes)) selection.ids.clear();
  isNewest = nextQuery();
  if ("q" in changes) runQuerySoon(); // on each keystroke
  else runQuery();
}

function sortBy(sort, column) {
  const isDescending = urlState.sort.startsWith("-");
  if (urlState.sort.replace(/^-/, "") === sort) return change({ sort: isDescending ? sort : `-${sort}` });
  // Numbers and times are sorted from the best, newest or largest; text from A.
  const isAscending = !column || column.goal === "minimize" || ["text", "job"].includes(column.type);
  return change({ sort: isAscending ? sort : `-${sort}` });
}

function draw() {
  afterPress(drawList);
}

function drawList() {
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
  const matching = urlState.status.length
    ? urlState.status.reduce((sum, status) => sum + (counts[status] ?? 0), 0)
    : total;
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
    $(".count", button).textContent = String(status ? (counts[status] ?? 0) : total);
    button.hidden = status !== "" && !counts[status] && !urlState.status.includes(status);
  }
  $("#csv").href = urlState.list({
    format: "csv",
    columns: csvColumns(urlState.columns, loaded.length ? loaded : [...jobs.values()]).join(","),
  });
  selection.draw(ids, table.all);
  table.setColumns(columns, urlState.sort);
  const [items, ends] = visibleItems();
  table.show(items, ends, jobs, selection.ids, bestOf(columns, loaded), parents);
}

function listStatus(matching) {
  const jobsOf = (count) => counted(count, "job");
  if (urlState.group) {
    return `${counted(sections.length, "group")}, ${jobsOf(matching)}${
      hasMoreGroups ? "; older groups are not shown: narrow the search" : ""
    }`;
  }
  const loaded = sections[0]?.ids.reduce((sum, id) => sum + (collapsedSection(jobs.get(id))?.sweep.jobs ?? 1), 0);
  return sections[0]?.cursor ? `${loaded} loaded of ${matching}; more come as you scroll` : jobsOf(loaded);
}

// The rows of the table, and the positions at which more can be loaded.
function visibleItems() {
  const [items, ends] = [[], []];
  const addRows = (section) => {
    for (const id of section.ids) {
      const collapsed = section.group ? null : collapsedSection(jobs.get(id));
      items.push(
        collapsed
          ? { key: `group ${collapsed.key}`, kind: "group", section: collapsed }
          : { key: `${section.key} ${id}`, kind: "job", id },
      );
      if (collapsed?.open) addRows(collapsed);
    }
    if (section.cursor !== null) ends.push({ index: items.length, section: section });
  };
  for (const section of sections) {
    if (section.group) items.push({ key: `group ${section.key}`, kind: "group", section: section });
    if (section.open) addRows(section);
  }
  return [items, ends];
}

function amend(id, changes) {
  const job = jobs.get(id);
  if (job) jobs.set(id, { ...job, ...changes });
  draw();
}

// Applies a saved change. Responses to requests from before it are dropped, and the rows are reloaded.
function applySaved(id, changes) {
  edits += 1;
  amend(id, changes);
  refreshRows();
}

async function star(id) {
  if (saving.has(id)) return;
  const job = jobs.get(id);
  saving.set(id, { starred: !job.starred });
  amend(id, saving.get(id)); // optimistic; the response has the final value
  const starred = await saveStar(job, !job.starred);
  saving.delete(id);
  applySaved(id, { starred });
}

async function note(id) {
  const text = await editNote(jobs.get(id));
  if (text !== undefined) applySaved(id, { note: text });
}

const titles = { parent: (id) => parents[id], sweep: (id) => sweeps[id]?.title };
const drawFilter = () => showFilter(urlState, titles, change);

function forget(id) {
  for (const section of allSections()) section.ids = section.ids.filter((other) => other !== id);
}

function receive(changes) {
  const job = jobs.get(changes.job);
  if (!job) return;
  const change = {};
  if (changes.type === "metrics") {
    change.metrics = changes.values;
    change.columns = afterEpoch(columns, job.columns, changes.values);
    if (!STABLE_SORTS.test(urlState.sort)) refreshRows();
  }
  if ("fraction" in changes && !isOver(job)) {
    const { epoch, epochs, step, steps, fraction, eta_seconds } = changes;
    change.progress = { epoch, epochs, step, steps, fraction, eta_seconds };
  }
  jobs.set(changes.job, { ...job, ...change });
  table.drawSoon();
}

const firstIds = storePage(initial.list);
if (initial.groups) applyGroups(initial.groups);
else sections = [{ ...createSection(), ids: firstIds, cursor: initial.list.next_cursor }];
$("#statuses").append(
  ...["", ...STATUSES].map((status) =>
    h(
      "button",
      {
        type: "button",
        dataset: { status },
        onclick: () => change({ status: status && !urlState.status.includes(status) ? [status] : [] }),
      },
      status ? capital(status) : "All",
      h("span", { class: "count" }),
    )
  ),
);
drawFilter();
draw();
document.documentElement.dataset.ready = Math.round(performance.now());

$("#filters").addEventListener("submit", (event) => event.preventDefault());
$("#filters").addEventListener("input", ({ target }) => change({ [target.name]: target.value }));
$("#starred").addEventListener("click", () => change({ starred: urlState.starred ? "" : "true" }));
$("#show-all").addEventListener(
  "click",
  () =>
    change({
      q: "",
      kind: "",
      name: "",
      preset: "",
      dataset: "",
      spec: "",
      parent: "",
      sweep: "",
      starred: "",
      tag: [],
      without: [],
      status: [],
    }),
);
$("#help").addEventListener("click", () => $("#keys").showModal());
offerViews(() => urlState.query);
offerColumns({
  columns: () => urlState.columns,
  defaults: initial.columns,
  known: () => columns,
  address: () => `/jobs/columns?${urlState.parameters()}`,
  change: (names) => change({ columns: names }),
});
const onlyReads = document.body.classList.contains("only-reads");
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const isTyping = document.activeElement.matches("input:not([type=checkbox]), select, textarea");
  if (event.key === "Escape") {
    if (isTyping) document.activeElement.blur();
    else selection.act("none");
  }
  if (isTyping) return;
  const focusedId = table.current();
  const keys = {
    "/": () => $("#filters [name=q]").focus(),
    n: () => onlyReads || location.assign("/ui/new"),
    j: () => table.move(1),
    k: () => table.move(-1),
    x: () => focusedId && selection.toggle(focusedId, false),
    s: () => focusedId && !onlyReads && star(focusedId),
    e: () => focusedId && !onlyReads && note(focusedId),
    c: () => selection.ids.size > 1 && selection.ids.size <= MAX_COMPARED && selection.act("compare"),
    "?": () => $("#keys").showModal(),
  };
  if (!(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});

const markChanged = (changes) => {
  changed.add(changes.job);
  refreshRows();
};
listen(() => "/stream", {
  // After a reconnect, the state of unfinished jobs is unknown.
  snapshot() {
    for (const [id, job] of jobs) if (!isOver(job)) changed.add(id);
    refreshRows();
  },
  status: markChanged,
  end: markChanged,
  health: markChanged,
  metrics: receive,
  progress: receive,
});
setInterval(() => {
  // Relative times ("5 min ago") are updated.
  for (const id of shownIds()) jobs.set(id, { ...jobs.get(id) });
  table.drawSoon();
}, 20_000);
setInterval(async () => {
  if (document.hidden) return;
  const queue = await call("/queue?limit=1").catch(() => null);
  if (!queue) return;
  $("#impediment").hidden = !IMPEDIMENTS.has(queue.reason);
  $("#impediment").textContent = queue.reason_text;
}, 15_000);
if (urlState.owner) setInterval(() => document.hidden || refreshRows(), FOREIGN_REFRESH_MS);

// The buttons that start a first job; the page shows them while there are no jobs.
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
