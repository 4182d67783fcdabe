// One sweep and its trials. The first rows are drawn before anything else is loaded: curves, decisions, and settings
// with results (results.js) follow when they come into view.
import { $, announce, capital, describe, duration, h, keepFocus, metric, settingName } from "../common/dom.js";
import { call } from "../common/api.js";
import { checkConnection } from "../common/connection.js";
import { latest } from "../common/latest.js";
import { released } from "../common/press.js";
import { TrialTable } from "./trial-table.js";

const PAGE_SIZE = 100;
const REFRESH_MS = 3000;
const PAUSE_MS = 1000; // minimum pause before an automatic refresh
const PAUSE_FACTOR = 4; // or this multiple of the last refresh's duration: a large sweep must not overload the browser

let sweep = JSON.parse($("#sweep").textContent);
let trials = JSON.parse($("#first-trials").textContent);
let limit = PAGE_SIZE;
let isGone = false;
const address = sweep.urls.self;
const name = sweep.objective.metric;
const settings = Object.keys(sweep.resolved.space);
const table = new TrialTable(sweep, { order, light: (trial) => parts?.light(trial) });
let parts = null; // the parts around the trials; null until loaded
let pause_ms = PAUSE_MS;
let refreshTimer = null;
let drawnActions = null; // the actions with a button
const isOver = () => ["succeeded", "failed", "cancelled"].includes(sweep.status);

const isAsynchronous = () => sweep.resolved.halving?.mode === "asynchronous";

const doneEpochs = () => sweep.epochs_trained + sweep.epochs_reused;

// The maximum number of epochs; null for a sweep that has ended and reached it. The number of promotions by
// asynchronous halving depends on the results, so the maximum is meaningless once it has ended.
const epochLimit =
  () => (isOver() && (isAsynchronous() || doneEpochs() === sweep.epochs_at_most) ? null : sweep.epochs_at_most);

// How many epochs were trained, reused, and charged to the budget.
function describeEpochs() {
  const { epochs_trained: trained, epochs_reused: reused, epochs_started: planned, budget_epochs: budget } = sweep;
  const number = (count) => count.toLocaleString("en");
  return [
    `${number(trained)} trained`,
    reused ? `${number(reused)} reused` : "",
    budget ? `${number(planned)} planned of a budget of ${number(budget)}` : "",
  ].filter(Boolean).join(", ");
}

function drawFacts() {
  $("#status").className = `status ${sweep.status}`;
  $("#status").textContent = sweep.status;
  $("#error").hidden = !sweep.error;
  $("#error").textContent = sweep.error ? `${capital(sweep.error.message)}.` : "";
  const { total, succeeded, stopped, failed, running, waiting } = sweep.trials;
  const [epochs, maxEpochs] = [doneEpochs(), epochLimit()];
  const done = succeeded + stopped + failed;
  const parts = Object.entries({ running, waiting, stopped, succeeded, failed }).filter(([, count]) => count).map((
    [state, count],
  ) => `${count} ${state === "running" && sweep.status === "paused" ? "paused" : state}`);
  const tile = (title, ...content) =>
    h("div", { class: "tile" }, h("div", { class: "muted small" }, title), ...content);
  const bar = (value, max, label) => h("progress", { value, max, "aria-label": label, class: sweep.status });
  const best = sweep.best_trial === null ? "–" : metric(name, sweep.best_value);
  $("#tiles").replaceChildren(
    tile(
      "Epochs",
      h(
        "div",
        { class: "value" },
        `${epochs.toLocaleString("en")}${maxEpochs ? ` of at most ${maxEpochs.toLocaleString("en")}` : ""}`,
      ),
      h("div", { class: "small muted" }, describeEpochs()),
      isAsynchronous() && maxEpochs && maxEpochs !== sweep.budget_epochs
        ? h("div", { class: "small muted" }, "Asynchronous halving usually takes fewer.")
        : "",
      maxEpochs ? bar(Math.min(epochs, maxEpochs), maxEpochs, "Epochs of all jobs together") : "",
    ),
    tile(
      "Trials that have ended",
      h("div", { class: "value" }, `${done} of ${total}`),
      h("div", { class: "small muted" }, parts.join(", ") || "none yet"),
    ),
    tile(
      isOver() ? `Best ${describe(name).label}` : `Best ${describe(name).label} so far`,
      h("div", { class: "value" }, best),
      h("div", { class: "small muted" }, sweep.best_trial === null ? "" : `trial ${sweep.best_trial}`),
    ),
    sweep.eta_seconds === null ? "" : tile(
      "Time left",
      h("div", { class: "value" }, `about ${duration(sweep.eta_seconds)}`),
      h("div", { class: "small muted" }, isAsynchronous() ? "at most" : ""),
    ),
    sweep.sweep_digest ? tile("Digest", h("code", { title: sweep.sweep_digest }, sweep.sweep_digest.slice(7, 19))) : "",
  );
  $("#best-sentence").textContent = sweep.best_sentence ?? "";
  if (sweep.allowed_actions.join() === drawnActions) return;
  drawnActions = sweep.allowed_actions.join();
  const labels = { pause: "Pause", resume: "Resume", cancel: "Cancel", delete: "Delete" };
  const buttons = sweep.allowed_actions.map((action) =>
    h("button", {
      type: "button",
      dataset: { action },
      class: ["cancel", "delete"].includes(action) ? "danger" : "",
      onclick: () => runAction(action),
    }, labels[action])
  );
  // These two replace each other.
  const keyOf = ({ dataset }) => (dataset.action === "resume" ? "pause" : dataset.action);
  keepFocus("#verbs button", keyOf, () => $("#verbs").replaceChildren(...buttons));
}

async function runAction(action) {
  const question = {
    cancel: "Cancel this sweep and its unfinished jobs?",
    delete: "Delete this sweep with all its jobs and files?",
  }[action];
  if (question && !confirm(question)) return;
  try {
    if (action === "delete") {
      isGone = true; // stop requesting
      await call(address, { method: "DELETE" }).catch((error) => {
        isGone = false;
        throw error;
      });
      return void location.assign("/ui/sweeps");
    }
    sweep = await call(`${address}/${action}`, { method: "POST" });
    drawFacts();
    refresh();
  } catch (error) {
    announce(error.message, "error");
  }
}

function order(sort) {
  const select = $("#sort");
  if (![...select.options].some((option) => option.value === sort)) {
    select.append(
      h(
        "option",
        { value: sort },
        sort.startsWith("-") ? `${settingName(sort.slice(1))}, descending` : settingName(sort),
      ),
    );
  }
  select.value = sort;
  refresh();
}

// One refresh at a time, even if the service is slow.
const refresh = latest(async () => {
  if (isGone) return;
  let startedAt;
  try {
    do {
      startedAt = performance.now(); // without the time of a press
      const sort = encodeURIComponent($("#sort").value);
      [sweep, trials] = await Promise.all([call(address), call(`${address}/trials?sort=${sort}&limit=${limit}`)]);
    } while (await released());
    drawFacts();
    drawRows();
    await parts?.show(sweep, trials.data, table.metrics);
  } catch (error) {
    if (error.status === 404) location.assign("/ui/sweeps");
  }
  pause_ms = Math.max(PAUSE_MS, PAUSE_FACTOR * (performance.now() - startedAt));
});

function refreshSoon() {
  refreshTimer ??= setTimeout(() => {
    refreshTimer = null;
    refresh();
  }, pause_ms);
}

function drawRows() {
  table.show(trials.data, $("#sort").value, sweep.best_trial, sweep.status === "paused");
  $("#more").hidden = !trials.has_more;
}

async function loadParts() {
  const loaded = await import("./results.js").catch(() => null);
  if (!loaded) {
    // A browser may cache a failed import, so the page is reloaded instead of importing again.
    addEventListener("connectionback", () => location.reload(), { once: true });
    announce("Curves and decisions could not be loaded. Reload the page.", "error");
    return checkConnection();
  }
  parts = new loaded.SweepParts(
    sweep,
    (seq) => seq > sweep.last_seq && refreshSoon(),
    (selected) => table.select(selected),
  ); // skips replayed events
  // The page itself contains only as many as fit on a screen.
  await (trials.has_more ? refresh() : parts.show(sweep, trials.data, table.metrics));
}

const sorts = [
  ["best", "best first"],
  ["trial", "trial"],
  ["-value", "highest value"],
  ["value", "lowest value"],
  ["epoch", "fewest epochs"],
  ["-epoch", "most epochs"],
  ...settings.map((setting) => [setting, settingName(setting)]),
];
$("#sort").replaceChildren(...sorts.map(([sort, label]) => h("option", { value: sort }, label)));
$("#sort").addEventListener("change", refresh);
$("#more").addEventListener("click", () => {
  limit += 5 * PAGE_SIZE;
  refresh();
});
drawFacts();
drawRows();
document.documentElement.dataset.ready = Math.round(performance.now());
requestAnimationFrame(() => setTimeout(loadParts)); // after the first frame
setInterval(() => !isOver() && document.visibilityState === "visible" && refreshSoon(), REFRESH_MS);
