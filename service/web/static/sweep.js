// One sweep and its trials. The first rows are drawn before anything else is loaded: curves, decisions, and settings
// with results (sweep-parts.js) follow when they come into view.
import { $, announce, capital, describe, h, metric } from "./dom.js";
import { call } from "./api.js";
import { checkConnection } from "./connection.js";
import { latest } from "./latest.js";
import { TrialTable } from "./trial-table.js";

const PAGE = 100;
const REFRESH_MS = 3000;
const PAUSE_MS = 1000; // before an automatic refresh,
const MULTIPLE = 4; // or this multiple of the last refresh's duration, so that a large sweep does not occupy the browser

let sweep = JSON.parse($("#sweep").textContent);
let trials = JSON.parse($("#first-trials").textContent);
let shown = PAGE;
let isGone = false;
const address = sweep.urls.self;
const name = sweep.objective.metric;
const settings = Object.keys(sweep.resolved.space);
const table = new TrialTable(sweep, { order, light });
let parts = null; // the parts around the trials, once loaded
let pause_ms = PAUSE_MS;
let due = null;
const isOver = () => ["succeeded", "failed", "cancelled"].includes(sweep.status);

const isAsynchronous = () => sweep.resolved.halving?.mode === "asynchronous";

const doneEpochs = () => sweep.epochs_trained + sweep.epochs_reused;

// The maximum; null at the end of a sweep that reached it. How many promotions asynchronous halving makes depends on the
// results: at its end, the maximum means nothing.
const mostEpochs = () => (isOver() && (isAsynchronous() || doneEpochs() === sweep.epochs_at_most) ? null : sweep.epochs_at_most);

// What was trained and reused, and how much the budget has been charged.
function epochsInWords() {
  const { epochs_trained: trained, epochs_reused: reused, epochs_started: planned, budget_epochs: budget } = sweep;
  const number = (count) => count.toLocaleString("en");
  return [`${number(trained)} trained`, reused ? `${number(reused)} reused` : "", budget ? `${number(planned)} planned of a budget of ${number(budget)}` : ""].filter(Boolean).join(", ");
}

function drawFacts() {
  $("#status").className = `status ${sweep.status}`;
  $("#status").textContent = sweep.status;
  $("#error").hidden = !sweep.error;
  $("#error").textContent = sweep.error ? `${capital(sweep.error.message)}.` : "";
  const { total, succeeded, stopped, failed, running, waiting } = sweep.trials;
  const [epochs, most] = [doneEpochs(), mostEpochs()];
  const done = succeeded + stopped + failed;
  const parts = Object.entries({ running, waiting, stopped, succeeded, failed }).filter(([, count]) => count).map(([what, count]) => `${count} ${what === "running" && sweep.status === "paused" ? "paused" : what}`);
  const tile = (title, ...content) => h("div", { class: "tile" }, h("div", { class: "muted small" }, title), ...content);
  const bar = (at, end, label) => h("progress", { value: at, max: end, "aria-label": label, class: sweep.status });
  const best = sweep.best_trial === null ? "–" : metric(name, sweep.best_value);
  $("#tiles").replaceChildren(
    tile("Epochs", h("div", { class: "value" }, `${epochs.toLocaleString("en")}${most ? ` of at most ${most.toLocaleString("en")}` : ""}`), h("div", { class: "small muted" }, epochsInWords()), isAsynchronous() && most && most !== sweep.budget_epochs ? h("div", { class: "small muted" }, "Asynchronous halving usually takes fewer.") : "", most ? bar(Math.min(epochs, most), most, "Epochs of all jobs together") : ""),
    tile("Trials that have ended", h("div", { class: "value" }, `${done} of ${total}`), h("div", { class: "small muted" }, parts.join(", ") || "none yet")),
    tile(isOver() ? `Best ${describe(name).label}` : `Best ${describe(name).label} so far`, h("div", { class: "value" }, best), h("div", { class: "small muted" }, sweep.best_trial === null ? "" : `trial ${sweep.best_trial}`)),
    sweep.sweep_digest ? tile("Digest", h("code", { title: sweep.sweep_digest }, sweep.sweep_digest.slice(7, 19))) : "",
  );
  const labels = { pause: "Pause", resume: "Resume", cancel: "Cancel", delete: "Delete" };
  $("#verbs").replaceChildren(...sweep.allowed_actions.map((verb) => h("button", { type: "button", class: ["cancel", "delete"].includes(verb) ? "danger" : "", onclick: () => act(verb) }, labels[verb])));
}

async function act(verb) {
  const sure = { cancel: "Cancel this sweep and its unfinished jobs?", delete: "Delete this sweep with all its jobs and files?" }[verb];
  if (sure && !confirm(sure)) return;
  try {
    if (verb === "delete") {
      isGone = true; // stop requesting
      await call(address, { method: "DELETE" }).catch((error) => {
        isGone = false;
        throw error;
      });
      return void location.assign("/ui/sweeps");
    }
    sweep = await call(`${address}/${verb}`, { method: "POST" });
    drawFacts();
    renew();
  } catch (error) {
    announce(error.message, "error");
  }
}

function light(trial) {
  for (const path of document.querySelectorAll("#coordinates path")) path.classList.toggle("lit", path.dataset.trial === String(trial));
}

function order(sort) {
  const select = $("#sort");
  if (![...select.options].some((option) => option.value === sort)) select.append(h("option", { value: sort }, sort.startsWith("-") ? `${sort.slice(1)}, descending` : sort));
  select.value = sort;
  renew();
}

// One refresh at a time, however slow the service is.
const renew = latest(async () => {
  if (isGone) return;
  const began = performance.now();
  try {
    const sort = encodeURIComponent($("#sort").value);
    [sweep, trials] = await Promise.all([call(address), call(`${address}/trials?sort=${sort}&limit=${shown}`)]);
    drawFacts();
    drawRows();
    await parts?.show(sweep, trials.data, table.metrics);
  } catch (error) {
    if (error.status === 404) location.assign("/ui/sweeps");
  }
  pause_ms = Math.max(PAUSE_MS, MULTIPLE * (performance.now() - began));
});

function renewSoon() {
  due ??= setTimeout(() => {
    due = null;
    renew();
  }, pause_ms);
}

function drawRows() {
  table.show(trials.data, $("#sort").value, sweep.best_trial, sweep.status === "paused");
  $("#more").hidden = !trials.has_more;
}

async function drawRest() {
  const loaded = await import("./sweep-parts.js").catch(() => null);
  if (!loaded) {
    // A browser may remember that a module could not be loaded, so it is not imported again.
    addEventListener("connectionback", () => location.reload(), { once: true });
    announce("Curves and decisions could not be loaded. Reload the page.", "error");
    return checkConnection();
  }
  parts = new loaded.SweepParts(sweep, (seq) => seq > sweep.last_seq && renewSoon()); // replayed events are already known
  await (trials.has_more ? renew() : parts.show(sweep, trials.data, table.metrics)); // the page itself contains as many as fit on a screen
}

const sorts = [["best", "best first"], ["trial", "trial"], ["-value", "highest value"], ["value", "lowest value"], ["epoch", "fewest epochs"], ["-epoch", "most epochs"], ...settings.map((setting) => [setting, setting])];
$("#sort").replaceChildren(...sorts.map(([sort, label]) => h("option", { value: sort }, label)));
$("#sort").addEventListener("change", renew);
$("#more").addEventListener("click", () => {
  shown += 5 * PAGE;
  renew();
});
drawFacts();
drawRows();
document.documentElement.dataset.ready = Math.round(performance.now());
requestAnimationFrame(() => setTimeout(drawRest)); // after the first frame
setInterval(() => !isOver() && document.visibilityState === "visible" && renewSoon(), REFRESH_MS);
