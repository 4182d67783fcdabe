// One sweep: what it has decided, its trials, their curves, and how settings and results go together.
import { $, announce, capital, describe, h, metric, throttle } from "./dom.js";
import { call, listen } from "./api.js";
import { drawCoordinates } from "./coordinates.js";
import { latest } from "./latest.js";
import { SweepCurves } from "./sweep-curves.js";
import { settingText, TrialTable } from "./trial-table.js";

const PAGE = 100;
const REFRESH_MS = 3000;

let sweep = JSON.parse($("#sweep").textContent);
let trials = JSON.parse($("#first-trials").textContent);
let shown = PAGE;
let isGone = false;
const address = sweep.urls.self;
const name = sweep.objective.metric;
const settings = Object.keys(sweep.resolved.space);
const table = new TrialTable(sweep, { order, light });
const curves = new SweepCurves(sweep);
const isOver = () => ["succeeded", "failed", "cancelled"].includes(sweep.status);

function drawFacts() {
  $("#status").className = `status ${sweep.status}`;
  $("#status").textContent = sweep.status;
  $("#error").hidden = !sweep.error;
  $("#error").textContent = sweep.error ? `${capital(sweep.error.message)}.` : "";
  const { total, succeeded, stopped, failed, running, waiting } = sweep.trials;
  const done = succeeded + stopped + failed;
  const parts = Object.entries({ running, waiting, stopped, succeeded, failed }).filter(([, count]) => count).map(([what, count]) => `${count} ${what}`);
  const tile = (title, ...content) => h("div", { class: "tile" }, h("div", { class: "muted small" }, title), ...content);
  const bar = (at, end, label) => h("progress", { value: at, max: end, "aria-label": label, class: sweep.status });
  const best = sweep.best_trial === null ? "–" : metric(name, sweep.best_value);
  $("#tiles").replaceChildren(
    tile("Trials", h("div", { class: "value" }, `${done} of ${total}`), h("div", { class: "small muted" }, parts.join(", ") || "none yet"), bar(done, total, "Trials that have ended")),
    tile(isOver() ? `Best ${describe(name).label}` : `Best ${describe(name).label} so far`, h("div", { class: "value" }, best), h("div", { class: "small muted" }, sweep.best_trial === null ? "" : `trial ${sweep.best_trial}`)),
    tile("Epochs", h("div", { class: "value" }, sweep.epochs_started.toLocaleString("en") + (sweep.budget_epochs ? ` of ${sweep.budget_epochs.toLocaleString("en")}` : "")), sweep.budget_epochs ? bar(sweep.epochs_started, sweep.budget_epochs, "Budget used") : ""),
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
      isGone = true; // nothing more is asked for
      await call(address, { method: "DELETE" }).catch((error) => {
        isGone = false;
        throw error;
      });
      return void location.assign("/ui/sweeps");
    }
    sweep = await call(`${address}/${verb}`, { method: "POST" });
    drawFacts();
    refresh();
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
  refresh();
}

async function drawImportance() {
  if (!settings.length) return;
  const { data } = await call(`${address}/importance`);
  const known = data.filter((item) => item.share !== null);
  $("#importance").hidden = !known.length;
  $("#importance tbody").replaceChildren(...known.map((item) => h("tr", {}, h("td", {}, h("code", {}, item.setting)), h("td", { class: "number" }, h("progress", { value: item.share, max: 1, "aria-hidden": "true" }), `${Math.round(100 * item.share)}%`), h("td", {}, item.best ?? "–"))));
}

function sentenceOf({ type, data }) {
  const list = (items) => items.map(([trial, at]) => `${trial} (${metric(name, at)})`).join(", ");
  switch (type) {
    case "propose":
      return data.error ? `Trial ${data.trial} has invalid settings: ${data.error.message}` : `Trial ${data.trial} starts${settings.length ? ` with ${settings.map((setting) => `${setting} ${settingText(data.settings[setting])}`).join(", ")}` : ""}.`;
    case "result":
      return data.error ? `Trial ${data.trial} failed: ${data.error}.` : `Trial ${data.trial} has ${describe(name).label} ${metric(name, data.value)}.`;
    case "promote":
      return `Promoted after epoch ${data.epoch}: ${list(data.trials)}.`;
    case "stop":
      return `Stopped after epoch ${data.epoch}: ${list(data.trials)}.`;
    case "exhausted":
      return `No more trials start: ${data.by}.`;
    case "winner":
      return `The winner is trial ${data.trial} with ${metric(name, data.value)}.`;
    case "status":
      return `${capital(data.reason)}.`;
    default:
      return `The sweep has ${data.status}.`;
  }
}

// One renewal at a time, however slow the service is.
const refresh = throttle(1000, latest(async () => {
  if (isGone) return;
  try {
    const sort = encodeURIComponent($("#sort").value);
    [sweep, trials] = await Promise.all([call(address), call(`${address}/trials?sort=${sort}&limit=${shown}`)]);
    await drawAll();
  } catch (error) {
    if (error.status === 404) location.assign("/ui/sweeps");
  }
}));

function drawAll() {
  drawFacts();
  table.show(trials.data, $("#sort").value, sweep.best_trial);
  $("#more").hidden = !trials.has_more;
  const usable = trials.data.filter((trial) => trial.value !== null);
  $("#parallel").hidden = !settings.length || usable.length < 2;
  if (!$("#parallel").hidden) drawCoordinates($("#coordinates"), { trials: usable, settings, name, best: sweep.best_trial, label: describe(name).label, format: (at) => metric(name, at), logs: settings.filter((setting) => sweep.resolved.space[setting].log) });
  curves.offer(table.metrics);
  return Promise.all([curves.draw(), drawImportance().catch(() => {})]);
}

function follow() {
  const receive = (event) => {
    $("#decisions").prepend(h("li", {}, sentenceOf(event)));
    if (event.type === "end" || event.type === "status") stream.last = event.seq;
    if (event.seq > sweep.last_seq) refresh(); // what is replayed is known already
  };
  const types = ["status", "propose", "result", "promote", "stop", "exhausted", "winner", "end"];
  const stream = listen(() => `${address}/stream`, {
    snapshot: () => $("#decisions").replaceChildren(),
    ...Object.fromEntries(types.map((type) => [type, receive])),
    end: (event) => {
      receive(event);
      stream.close();
    },
  });
}

const orders = [["best", "best first"], ["trial", "trial"], ["-value", "highest value"], ["value", "lowest value"], ["epoch", "fewest epochs"], ["-epoch", "most epochs"], ...settings.map((setting) => [setting, setting])];
$("#sort").replaceChildren(...orders.map(([sort, label]) => h("option", { value: sort }, label)));
$("#sort").addEventListener("change", () => refresh());
$("#more").addEventListener("click", () => {
  shown += 5 * PAGE;
  refresh();
});
drawAll();
follow();
setInterval(() => !isOver() && document.visibilityState === "visible" && refresh(), REFRESH_MS);
