// The list of sweeps, and the form for a new one: JSON, and a builder that adds settings to its space.
import { $, announce, capital, counted, h } from "./dom.js";
import { call } from "./api.js";
import { latest } from "./latest.js";

const REFRESH_MS = 5000;

const examples = JSON.parse($("#examples").textContent);
const text = $("#document");
const pretty = (document) => JSON.stringify(document, null, 2);

function showText(document) {
  text.value = document;
  drawSpace();
}

const show = (document) => showText(pretty(document));

function read() {
  try {
    return JSON.parse(text.value);
  } catch (error) {
    listFaults([{ pointer: "", detail: error.message }]);
    return null;
  }
}

// Shows the faults with their pointers.
function listFaults(faults) {
  $("#plan").hidden = true;
  $("#faults").hidden = !faults.length;
  $("#faults").replaceChildren(
    h("strong", {}, `${counted(faults.length, "fault")}:`),
    h("ul", {}, faults.map((fault) => h("li", {}, fault.pointer ? h("code", {}, fault.pointer) : "", fault.pointer ? ` ${fault.detail}` : capital(fault.detail)))),
  );
}

function drawSpace() {
  let space = {};
  try {
    space = JSON.parse(text.value).space ?? {};
  } catch {
    return; // the builder waits until the JSON is valid
  }
  const chips = Object.entries(space).map(([pointer, range]) =>
    h("button", { type: "button", class: "tag", title: "Remove", "aria-label": `Remove ${pointer}`, onclick: () => change((document) => delete document.space[pointer]) }, `${pointer} ${JSON.stringify(range)} ✕`),
  );
  $("#space").replaceChildren(...chips);
}

function change(edit) {
  const document = read();
  if (!document) return;
  edit(document);
  show(document);
}

function addSetting() {
  const pointer = $("#pointer").value.trim();
  const kind = $("#range-kind").value;
  const words = $("#range-values").value.split(",").map((word) => word.trim()).filter(Boolean);
  if (!pointer || !words.length) return void announce("Name a setting and its values.", "error");
  const values = words.map((word) => {
    try {
      return JSON.parse(word);
    } catch {
      return word;
    }
  });
  return change((document) => (document.space = { ...document.space, [pointer]: { [kind]: values } }));
}

async function send(dryRun) {
  const document = read();
  if (!document) return;
  try {
    const answer = await call(`/sweeps${dryRun ? "?dry_run=true" : ""}`, { method: "POST", body: document, headers: dryRun ? {} : { "Idempotency-Key": crypto.randomUUID?.() ?? String(Math.random()) } });
    listFaults([]);
    if (!dryRun) return void location.assign(answer.urls.page);
    $("#plan").hidden = false;
    $("#plan").textContent = [`${counted(answer.trials, "trial")}, ${counted(answer.jobs, "job")}, at most ${answer.epochs.toLocaleString("en")} epochs (${answer.epochs_without_halving.toLocaleString("en")} without halving).`, ...answer.notes].join(" ");
  } catch (error) {
    listFaults(error.problem?.errors ?? [{ pointer: "", detail: error.message }]);
  }
}

// The settings of the base's preset as choices.
async function suggestPointers() {
  const { data } = await call("/presets");
  const found = new Set();
  const walk = (value, path) => {
    if (Array.isArray(value) && !value.some((item) => typeof item === "object")) found.add(path);
    else if (value !== null && typeof value === "object") for (const [name, below] of Object.entries(value)) walk(below, `${path}/${name}`);
    else found.add(path);
  };
  for (const preset of data) walk(preset.spec, "");
  $("#pointers").replaceChildren(...[...found].sort().map((value) => h("option", { value })));
}

// The list as the service shows it now. Rows that have not changed stay: a link keeps its focus.
const rows = new Map(); // id -> { html, row }
const renew = latest(async () => {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!answer?.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("#sweeps");
  const [before, now] = [$("#sweeps tbody"), fresh?.querySelector("tbody")];
  if (!before || !now) return void (fresh && $("#sweeps").replaceChildren(...fresh.childNodes));
  const focused = document.activeElement?.closest("[data-sweep]")?.dataset.sweep;
  const shown = [...now.children].map((row) => {
    const html = row.outerHTML; // before times are written in the reader's zone
    if (rows.get(row.dataset.sweep)?.html !== html) rows.set(row.dataset.sweep, { html, row });
    return rows.get(row.dataset.sweep).row;
  });
  if (shown.length === before.children.length && shown.every((row, at) => row === before.children[at])) return;
  before.replaceChildren(...shown);
  if (focused) rows.get(focused)?.row.querySelector("a").focus();
});
setInterval(() => document.visibilityState === "visible" && renew(), REFRESH_MS);

$("#open-form").addEventListener("click", () => {
  const form = $("#new-sweep");
  form.hidden = !form.hidden;
  $("#open-form").setAttribute("aria-expanded", String(!form.hidden));
});
$("#example").addEventListener("change", (event) => showText(examples[event.target.value][1]));
text.addEventListener("input", drawSpace);
$("#add-setting").addEventListener("click", addSetting);
$("#check").addEventListener("click", () => send(true));
$("#form").addEventListener("submit", (event) => {
  event.preventDefault();
  send(false);
});
showText(examples[0][1]);
suggestPointers().catch(() => {});
