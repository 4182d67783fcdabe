// One sweep: what it has decided, its trials, their curves, and how settings and results go together.
import { $, announce, capital, describe, h, metric, throttle } from "./dom.js";
import { call, listen } from "./api.js";
import { Chart } from "./chart.js";
import { drawCoordinates } from "./coordinates.js";
import { formatOf } from "./format.js";

const PAGE = 100;
const CURVES = 8; // so many lines can be told apart
const REFRESH_MS = 3000;

let sweep = JSON.parse($("#sweep").textContent);
let trials = JSON.parse($("#first-trials").textContent);
let shown = PAGE;
let chart = null;
let isGone = false;
const address = sweep.urls.self;
const name = sweep.objective.metric;
const settings = Object.keys(sweep.resolved.space);
const isOver = () => ["succeeded", "failed", "cancelled"].includes(sweep.status);
const value = (setting) => (typeof setting === "number" ? String(Number(setting.toPrecision(6))) : JSON.stringify(setting ?? null));

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

// A trial's values over its seeds: mean, and from where to where.
function valueCell(trial) {
  const values = trial.jobs.map((job) => job.value).filter((item) => item !== null);
  const range = values.length > 1 ? h("span", { class: "range" }, `${metric(name, Math.min(...values))} to ${metric(name, Math.max(...values))}`) : "";
  return h("td", { class: "value number" }, metric(name, trial.value), range);
}

function drawTrials() {
  const sort = $("#sort").value;
  const heading = (title, key, more = {}) => h("th", { scope: "col", ...more, "aria-sort": sort === key ? "ascending" : sort === `-${key}` ? "descending" : undefined }, h("button", { type: "button", onclick: () => order(sort === key ? `-${key}` : key) }, title));
  $("#trials thead").replaceChildren(h("tr", {}, heading("Trial", "trial"), heading("Status", "status"), heading(describe(name).label, "value", { class: "number" }), heading("Epoch", "epoch", { class: "number" }), settings.map((setting) => heading(setting, setting)), h("th", { scope: "col" }, "Jobs by seed")));
  const rows = trials.data.map((trial) => {
    const reached = Math.max(0, ...trial.jobs.map((job) => job.epoch ?? 0));
    const seeds = trial.jobs.map((job) => h("a", { class: "tag", href: `/ui/jobs/${job.job}`, title: `${job.status ?? "deleted"}, epoch ${job.epoch ?? "–"}` }, `seed ${job.seed}`));
    const status = trial.status === "running" && trial.jobs.every((job) => job.status === "queued") ? "queued" : trial.status;
    return h("tr", { class: trial.trial === sweep.best_trial ? "best" : "", onpointerenter: () => light(trial.trial), onpointerleave: () => light(null) },
      h("td", {}, String(trial.trial)), h("td", { title: trial.error?.message }, h("span", { class: `status ${status}` }, status)), valueCell(trial), h("td", { class: "number" }, String(reached)),
      settings.map((setting) => h("td", { class: typeof trial.settings[setting] === "number" ? "number" : "" }, value(trial.settings[setting]))), h("td", {}, h("div", { class: "seeds" }, seeds)));
  });
  $("#trials tbody").replaceChildren(...rows);
  $("#more").hidden = !trials.has_more;
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

async function drawCurves() {
  const found = await call(`${address}/curves?limit=${CURVES}`);
  if (!found.data.length) return;
  chart ??= new Chart(`sweep.${name}`, describe(name).label);
  if (!chart.element.isConnected) $("#curves .charts").append(chart.element);
  const series = found.data.map((item, index) => ({ name: `trial ${item.trial}`, label: `trial ${item.trial}`, x: item.epochs, y: item.mean, low: item.low, high: item.high, index: index % 8, sparse: describe(name).sparse }));
  const epochs = found.data.flatMap((item) => item.epochs);
  const marks = sweep.resolved.rungs.slice(0, -1).map((x) => ({ x, text: "rung" }));
  chart.show({ series, smoothing: 0, axis: "epoch", range: [Math.min(...epochs), Math.max(...epochs)], format: formatOf(name), marks });
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
      return data.error ? `Trial ${data.trial} has invalid settings: ${data.error.message}` : `Trial ${data.trial} starts${settings.length ? ` with ${settings.map((setting) => `${setting} ${value(data.settings[setting])}`).join(", ")}` : ""}.`;
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

const refresh = throttle(1000, async () => {
  if (isGone) return;
  try {
    const sort = encodeURIComponent($("#sort").value);
    [sweep, trials] = await Promise.all([call(address), call(`${address}/trials?sort=${sort}&limit=${shown}`)]);
    drawAll();
  } catch (error) {
    if (error.status === 404) location.assign("/ui/sweeps");
  }
});

function drawAll() {
  drawFacts();
  drawTrials();
  const usable = trials.data.filter((trial) => trial.value !== null);
  $("#parallel").hidden = !settings.length || usable.length < 2;
  if (!$("#parallel").hidden) drawCoordinates($("#coordinates"), { trials: usable, settings, name, best: sweep.best_trial, label: describe(name).label, format: (at) => metric(name, at), logs: settings.filter((setting) => sweep.resolved.space[setting].log) });
  drawCurves().catch(() => {});
  drawImportance().catch(() => {});
}

function follow() {
  const receive = (event) => {
    $("#decisions").prepend(h("li", {}, sentenceOf(event)));
    if (event.type === "end" || event.type === "status") stream.last = event.seq;
    refresh();
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
