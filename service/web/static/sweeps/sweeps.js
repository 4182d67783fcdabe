// The list of sweeps, and the form for a new one: JSON, and a builder that adds settings to its space.
import { $, announce, capital, counted, h } from "../common/dom.js";
import { call } from "../common/api.js";
import { refresh } from "../common/live.js";

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
    const response = await call(`/sweeps${dryRun ? "?dry_run=true" : ""}`, { method: "POST", body: document, headers: dryRun ? {} : { "Idempotency-Key": crypto.randomUUID?.() ?? String(Math.random()) } });
    listFaults([]);
    if (!dryRun) return void location.assign(response.urls.page);
    $("#plan").hidden = false;
    $("#plan").textContent = [`${counted(response.trials, "trial")}, ${counted(response.jobs, "job")}, at most ${response.epochs.toLocaleString("en")} epochs (${response.epochs_without_halving.toLocaleString("en")} without halving).`, ...response.notes].join(" ");
  } catch (error) {
    listFaults(error.problem?.errors ?? [{ pointer: "", detail: error.message }]);
  }
}

// Suggests the settings of all presets as pointers.
async function suggestPointers() {
  const { data } = await call("/presets");
  const pointers = new Set();
  const walk = (value, path) => {
    if (Array.isArray(value) && !value.some((item) => typeof item === "object")) pointers.add(path);
    else if (value !== null && typeof value === "object") for (const [name, child] of Object.entries(value)) walk(child, `${path}/${name}`);
    else pointers.add(path);
  };
  for (const preset of data) walk(preset.spec, "");
  $("#pointers").replaceChildren(...[...pointers].sort().map((value) => h("option", { value })));
}

setInterval(() => document.hidden || refresh().catch(() => {}), REFRESH_MS); // the service may be down

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
