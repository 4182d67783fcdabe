// The list of jobs: one stream keeps it fresh, pages come as one scrolls.
import { $, $$, announce, debounce, h, throttle } from "./dom.js";
import { call, listen } from "./api.js";
import { JobTable, isOver } from "./table.js";

const STATUSES = ["running", "queued", "paused", "succeeded", "failed", "cancelled"];
const AT_ONCE = 6; // requests that act on chosen jobs
const MOVED_MOST = 500; // so many rows are kept right where training moves jobs to other places
const STAYS = /created_at|priority|name/; // orders in which it does not

const asked = new URLSearchParams(location.search);
const filter = {
  q: asked.get("q") ?? "",
  kind: asked.get("kind") ?? "",
  tag: asked.get("tag") ?? "",
  sort: asked.get("sort") ?? "-created_at",
  status: (asked.getAll("status").join(",") || "").split(",").filter(Boolean),
};
const jobs = new Map(); // by id, in the order of the list
const chosen = new Set();
let cursor = null;
let counts = {};
let loading = false;
let lastChosen = null;

const table = new JobTable($("#list tbody"), {
  onchoose: choose,
  ontag: (tag) => change({ tag }),
  onnear: () => cursor && load(cursor),
});

function query(extra = {}) {
  const parameters = new URLSearchParams();
  for (const name of ["q", "kind", "tag"]) if (filter[name]) parameters.set(name, filter[name]);
  if (filter.sort !== "-created_at") parameters.set("sort", filter.sort);
  if (filter.status.length) parameters.set("status", filter.status.join(","));
  for (const [name, value] of Object.entries(extra)) parameters.set(name, value);
  return parameters;
}

function take(page) {
  for (const job of page.data) jobs.set(job.id, job);
  cursor = page.next_cursor;
  if (page.counts) counts = page.counts;
}

// One page more; the answer to a question that was changed meanwhile is thrown away.
async function load(after) {
  if (loading) return;
  loading = true;
  const sent = query().toString();
  try {
    const page = await call(`/jobs?${query({ limit: 100, cursor: after })}`);
    if (sent === query().toString()) take(page);
  } catch (error) {
    announce(error.message, "error");
    cursor = null;
  } finally {
    loading = false;
  }
  draw();
}

// The first page anew, for what has come and what is gone; what lies behind it stays loaded.
const renew = throttle(700, async () => {
  const sent = query().toString();
  const limit = Math.min(100, Math.max(50, jobs.size));
  const most = STAYS.test(filter.sort) ? limit : Math.min(jobs.size, MOVED_MOST);
  const data = [];
  let page = null;
  do {
    page = await call(`/jobs?${query({ limit, counts: true, ...(page && { cursor: page.next_cursor }) })}`).catch(() => null);
    if (page === null || sent !== query().toString()) return;
    data.push(...page.data);
  } while (page.has_more && data.length < most);
  counts = page.counts;
  const rest = page.has_more && jobs.size > data.length ? [...jobs.values()] : [];
  const fresh = new Set(data.map((job) => job.id));
  if (!rest.length) cursor = page.next_cursor;
  const lastFresh = rest.findLastIndex((job) => fresh.has(job.id));
  jobs.clear();
  for (const job of data) jobs.set(job.id, job);
  for (const job of rest.slice(lastFresh + 1)) jobs.set(job.id, job);
  draw();
});

function draw() {
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
  const filtered = filter.q || filter.kind || filter.tag || filter.status.length;
  for (const id of chosen) if (!jobs.has(id)) chosen.delete(id);
  $("#view").hidden = total === 0;
  $("#list").hidden = jobs.size === 0;
  $("#nothing").hidden = jobs.size > 0 || total === 0;
  $("#welcome").hidden = total > 0;
  $("#more").textContent = cursor ? `${jobs.size} loaded${filtered ? "" : ` of ${total}`}; more come as you scroll` : `${jobs.size} ${jobs.size === 1 ? "job" : "jobs"}`;
  for (const button of $$("#statuses button")) {
    const { status } = button.dataset;
    button.setAttribute("aria-pressed", status ? filter.status.includes(status) : !filter.status.length);
    $(".count", button).textContent = status ? (counts[status] ?? 0) : total;
    button.hidden = status !== "" && !counts[status] && !filter.status.includes(status);
  }
  $("#untag").hidden = !filter.tag;
  $("#untag").textContent = `Tag: ${filter.tag} ✕`;
  drawSelection();
  table.show([...jobs.values()], chosen);
}

function drawSelection() {
  const those = [...chosen].map((id) => jobs.get(id));
  $("#selection").hidden = those.length === 0;
  $("#selection strong").textContent = `${those.length} chosen`;
  $('[data-do="compare"]').disabled = those.length < 2 || those.length > 12;
  $('[data-do="cancel"]').disabled = !those.some((job) => job.allowed_actions.includes("cancel"));
  $('[data-do="delete"]').disabled = !those.some((job) => job.allowed_actions.includes("delete"));
  $("#all").checked = those.length > 0 && those.length === jobs.size;
  $("#all").indeterminate = those.length > 0 && those.length < jobs.size;
}

function choose(id, isRange) {
  const ids = [...jobs.keys()];
  const wanted = !chosen.has(id);
  const [from, to] = [ids.indexOf(isRange && lastChosen ? lastChosen : id), ids.indexOf(id)].sort((a, b) => a - b);
  for (const item of ids.slice(Math.max(from, 0), to + 1)) wanted ? chosen.add(item) : chosen.delete(item);
  lastChosen = id;
  draw();
}

function change(news) {
  Object.assign(filter, news);
  history.replaceState(null, "", query().size ? `/?${query()}` : "/");
  showFilter();
  jobs.clear();
  chosen.clear();
  cursor = null;
  if ("q" in news) findSoon(); // while one types
  else find();
}

const bare = (sort) => sort.replace(/^-/, "");
const turned = (sort) => (sort.startsWith("-") ? bare(sort) : `-${sort}`);

function showFilter() {
  for (const name of ["q", "kind", "sort"]) {
    const field = $(`#filters [name=${name}]`);
    if (field.value !== filter[name]) field.value = filter[name];
  }
  for (const button of $$(".sorter")) {
    const [own, falls] = [bare(button.dataset.sort) === bare(filter.sort), filter.sort.startsWith("-")];
    const cell = button.closest("th");
    if (own) cell.setAttribute("aria-sort", falls ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  }
}

async function find() {
  const sent = query().toString();
  const page = await call(`/jobs?${query({ limit: 50, counts: true })}`).catch((error) => announce(error.message, "error"));
  if (!page || sent !== query().toString()) return;
  jobs.clear();
  take(page);
  scrollTo(0, 0);
  draw();
}
const findSoon = debounce(120, find);

async function onEach(those, act) {
  const waiting = [...those];
  const refused = [];
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (let job = waiting.shift(); job; job = waiting.shift()) await act(job).catch((error) => refused.push(error));
    }),
  );
  const done = those.length - refused.length;
  if (refused.length) announce(`${refused.length} refused: ${refused[0].message}`, "error");
  return done;
}

async function act(what) {
  const those = [...chosen].map((id) => jobs.get(id)).filter((job) => what === "compare" || what === "none" || job.allowed_actions.includes(what));
  if (what === "none") chosen.clear();
  else if (what === "compare") location.assign(`/ui/compare?jobs=${[...chosen].join(",")}`);
  else if (what === "cancel") announce(`${await onEach(those, (job) => call(`${job.urls.self}/cancel`, { method: "POST" }))} cancelled`, "good");
  else if (what === "delete" && (await confirmed(those))) {
    announce(`${await onEach(those, (job) => call(job.urls.self, { method: "DELETE" }).then(() => jobs.delete(job.id)))} deleted`, "good");
    chosen.clear();
  }
  draw();
  if (what === "cancel" || what === "delete") renew();
}

function confirmed(those) {
  const dialog = $("#confirm");
  const kept = chosen.size - those.length;
  $("#confirm-title").textContent = `Delete ${those.length} ${those.length === 1 ? "job" : "jobs"}?`;
  $("#confirm-text").textContent = `Checkpoints, samples and curves go with them; there is no way back.${kept ? ` ${kept} that have not ended stay.` : ""}`;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

function heard(news) {
  const job = jobs.get(news.job);
  if (!job) return;
  const change = {};
  if (news.type === "metrics") {
    change.metrics = news.values;
    if (!STAYS.test(filter.sort)) renew();
  }
  if ("fraction" in news) {
    const { epoch, epochs, step, steps, fraction, eta_seconds } = news;
    change.progress = { epoch, epochs, step, steps, fraction, eta_seconds };
  }
  jobs.set(news.job, { ...job, ...change });
  table.jobs = [...jobs.values()];
  table.later();
}

take(JSON.parse($("#first").textContent));
$("#statuses").append(
  ...["", ...STATUSES].map((status) =>
    h(
      "button",
      { type: "button", dataset: { status }, onclick: () => change({ status: status && !filter.status.includes(status) ? [status] : [] }) },
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
for (const button of $$(".sorter")) {
  const { sort } = button.dataset;
  button.addEventListener("click", () => change({ sort: filter.sort === sort ? turned(sort) : sort }));
}
$("#untag").addEventListener("click", () => change({ tag: "" }));
$("#show-all").addEventListener("click", () => change({ q: "", kind: "", tag: "", status: [] }));
$("#all").addEventListener("click", (event) => {
  for (const id of jobs.keys()) event.target.checked ? chosen.add(id) : chosen.delete(id);
  draw();
});
$("#selection").addEventListener("click", (event) => {
  const what = event.target.closest("button")?.dataset.do;
  if (what) act(what);
});
$("#help").addEventListener("click", () => $("#keys").showModal());
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
  const keys = {
    "/": () => $("#filters [name=q]").focus(),
    n: () => location.assign("/ui/new"),
    j: () => table.move(1),
    k: () => table.move(-1),
    x: () => table.current() && choose(table.current(), false),
    c: () => chosen.size > 1 && act("compare"),
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
setInterval(() => table.rows.forEach((row) => isOver(row.job) || row.update({ ...row.job }, row.chosen)), 20_000);
setInterval(async () => {
  if (document.hidden) return;
  const workers = await call("/workers").catch(() => null);
  if (workers) $("#no-worker").hidden = workers.data.length > 0;
}, 15_000);
