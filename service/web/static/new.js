// A new job: the form, the JSON beside it, and what the service says of both while one types.
import { $, announce, counted, debounce, h } from "./dom.js";
import { call, onRestored } from "./api.js";
import { showFault, showPlan } from "./form/cost.js";
import { aboutDataset, datasetControl } from "./form/dataset.js";
import { Editor } from "./form/editor.js";
import { distinctName } from "./form/names.js";
import { PresetCards } from "./form/presets.js";
import { SchemaForm } from "./form/schema-form.js";
import { drawSections, filterFields, markSections } from "./form/sections.js";
import { apart, placed, together, Tries, wireSweepCard } from "./form/tries.js";

const ROOTS = { classifier: "ClassifierSpec", gan: "GanSpec" };
const KEPT = ["name", "tags", "priority", "dataset", "seed"]; // by a change of preset

const [{ $defs: parts }, { data: presets }, { data: datasets }] = await Promise.all([call("/schema.json"), call("/presets"), call("/datasets")]).catch(giveUp);
const tries = new Tries(() => take(together(form.sent, tries.sweep)));
const form = new SchemaForm(parts, {
  controls: { "/dataset/name": datasetControl(datasets) },
  pinned: ["/dataset/name", "/optimizer/learning_rate"],
  tries,
  onchange: () => take(together(form.sent, tries.sweep)),
});
const cards = new PresetCards(presets, choose, new Set(datasets.filter(({ kind }) => kind === "table").map(({ name }) => name)));
const editor = new Editor({ changed: take, broken });
const showSweep = wireSweepCard($("#sweep"), tries, () => form.value(["epochs"]));
const bases = new Map(); // preset and dataset -> the preset's spec for that dataset, once the service has told
let turn = 0;
let shown = null; // the kind whose fields are drawn
let isSubmitting = false;

// Without schema, presets and datasets there is no form: says why, and leaves the rest of this script waiting.
function giveUp({ message }) {
  showFault("The form could not be loaded");
  $("#faults").hidden = false;
  $("#faults").replaceChildren(h("li", {}, `${message} `, h("button", { type: "button", class: "slim", onclick: () => location.reload() }, "Reload the page")));
  return new Promise(() => {});
}

// With another preset the rest begins anew, but for what it does not decide.
function choose(kind, preset) {
  const whole = structuredClone(together(form.sent, tries.sweep));
  const before = form.sent;
  const kept = Object.fromEntries(KEPT.filter((name) => name in before && (name !== "dataset" || before.kind === kind)).map((name) => [name, before[name]]));
  if (typeof kept.dataset === "object") kept.dataset = { name: kept.dataset.name ?? form.value(["dataset", "name"]) };
  const isDefault = cards.of({ kind, ...kept }).name === preset;
  take({ kind, ...(isDefault ? {} : { preset }), ...kept });
  const lost = Object.keys(before).filter((name) => !["kind", "preset", ...KEPT].includes(name));
  if (whole.base) lost.push("the values to try");
  $("#discarded").replaceChildren(...(lost.length ? [`Your changes to ${lost.join(", ")} were discarded. `, h("button", { type: "button", class: "slim", onclick: () => take(whole) }, "Undo")] : []));
}

function take(document, options = {}) {
  $("#discarded").replaceChildren();
  turn += 1; // an answer that is still on its way is about an earlier document
  editor.show(document, options);
  const { job, sweep } = apart(document);
  const preset = cards.of(job);
  form.sent = job;
  tries.sweep = sweep;
  showSweep();
  $("#start").textContent = sweep ? "Start sweep" : "Start training";
  if (preset) draw(preset);
  askDefault(job);
  $("#form").inert = !preset; // what there is a form for is not known
  $("#new").setAttribute("aria-busy", "true"); // until the service has checked it
  check();
}

function draw(preset) {
  const root = parts[ROOTS[preset.kind]];
  const base = baseOf(preset);
  if (base !== form.base) form.networks.clear();
  form.load(root, base, form.sent);
  cards.show(preset, form.sent);
  if (shown !== preset.kind) {
    shown = preset.kind;
    form.fields.clear();
    drawSections($("#sections"), form, root);
  }
  form.sync();
  markSections($("#sections"), form.sent);
  $("#dataset-about").replaceChildren(...aboutDataset(datasets.find(({ name }) => name === form.value(["dataset", "name"]))), " ", h("a", { href: "/ui/datasets" }, "All datasets"));
}

// Which preset a dataset starts from where none is named: the service tells.
function askDefault({ kind, dataset }) {
  const name = typeof dataset === "string" ? dataset : dataset?.name;
  const key = `${kind} ${name}`;
  if (!(kind in ROOTS) || cards.defaults.has(key) || !datasets.some((item) => item.name === name)) return;
  cards.defaults.set(key, undefined); // once
  const use = (resolved) => {
    cards.defaults.set(key, resolved?.preset);
    const preset = cards.of(form.sent);
    if (resolved && preset) draw(preset);
  };
  plan({ kind, dataset: { name } }).then(({ resolved }) => use(resolved), ({ problem }) => use(problem?.resolved));
}

// A preset's last layers are made for the dataset: the service tells which they are.
function baseOf(preset) {
  const dataset = typeof form.sent.dataset === "string" ? form.sent.dataset : (form.sent.dataset?.name ?? preset.spec.dataset.name);
  if (dataset === preset.spec.dataset.name || !datasets.some(({ name }) => name === dataset)) return preset.spec;
  const key = `${preset.kind} ${preset.name} ${dataset}`;
  if (!bases.has(key)) {
    bases.set(key, preset.spec);
    const use = (resolved) => {
      if (!resolved) return;
      bases.set(key, resolved);
      if (cards.of(form.sent) === preset) draw(preset);
    };
    plan({ kind: preset.kind, preset: preset.name, dataset: { name: dataset } }).then(({ resolved }) => use(resolved), ({ problem }) => use(problem?.resolved));
  }
  return bases.get(key);
}

const plan = (spec) => call("/jobs?dry_run=true", { method: "POST", body: spec });

const check = debounce(180, async () => {
  if (!editor.isValid) return;
  const mine = turn;
  // Of a sweep the job alone is asked for, too: for the shapes of its layers, and its cost.
  const isSweep = tries.sweep !== null;
  const answers = isSweep ? [plan(form.sent), call("/sweeps?dry_run=true", { method: "POST", body: editor.text })] : [plan(editor.text)];
  const [job, sweep = job] = await Promise.allSettled(answers);
  if (mine !== turn) return;
  if (isSweep) hear(job.value ?? job.reason.problem ?? {});
  if (sweep.reason) return void refuse(sweep.reason); // the base alone may be invalid where the space replaces a value
  $("#new").removeAttribute("aria-busy");
  hear(job.value ?? {});
  form.tell([], offer);
  $("#faults").hidden = true;
  showPlan(job.value ?? null, isSweep ? sweep.value : null);
  $("#start").disabled = isSubmitting;
});

// What the service made of the spec: values, and the shapes of all layers.
function hear({ resolved, networks }) {
  if (resolved) form.filled = resolved;
  if (networks) form.networks = new Map(networks.map((network) => [network.pointer.slice(1), network]));
}

function refuse({ message, problem }) {
  $("#new").removeAttribute("aria-busy");
  if (problem?.code === "malformed_json") {
    editor.refuse(`Line ${problem.line}, column ${problem.column}: ${problem.detail}`);
    return;
  }
  const faults = tries.sweep ? placed(problem?.errors ?? []) : (problem?.errors ?? []);
  hear(problem ?? {});
  if (!tries.sweep && !problem?.networks && faults.length) form.networks.clear();
  const rest = form.tell(faults, offer);
  showFault(faults.length ? `${counted(faults.length, "field")} ${faults.length === 1 ? "needs" : "need"} attention` : message);
  $("#faults").hidden = rest.length === 0;
  $("#faults").replaceChildren(...rest.map((fault) => h("li", {}, h("code", {}, fault.pointer ?? ""), ` ${fault.detail} `, ...offer(fault))));
}

// A button for what the service suggests.
function offer(fault) {
  if (!fault.suggestion || !fault.pointer?.startsWith("#/")) return [];
  const isLayer = fault.code === "wrong_shape" && /\/layers\/\d+$/.test(fault.pointer);
  return [h("button", { type: "button", class: "slim", onclick: () => form.accept(fault) }, isLayer ? `Insert ${fault.suggestion} before it` : `Use ${fault.suggestion}`)];
}

function broken() {
  turn += 1; // an answer that is still on its way is none to this text
  $("#new").removeAttribute("aria-busy");
  form.tell([], offer);
  $("#faults").hidden = true;
  showFault("The JSON is not valid");
}

// One text is submitted once: where an answer got lost, to try again with the same key makes no second job.
const attempts = new Map(); // text -> idempotency key
$("#new").addEventListener("submit", async (event) => {
  event.preventDefault();
  if ($("#start").disabled || isSubmitting) return;
  isSubmitting = true;
  $("#start").disabled = true;
  const { text } = editor;
  if (!attempts.has(text)) attempts.set(text, crypto.getRandomValues(new Uint32Array(4)).join("-"));
  try {
    const job = await call(tries.sweep ? "/sweeps" : "/jobs", { method: "POST", body: text, headers: { "Idempotency-Key": attempts.get(text) } });
    attempts.delete(text); // who comes back and starts it again means another job
    location.assign(job.urls.page);
  } catch (error) {
    isSubmitting = false;
    if (text !== editor.text) check();
    else if (error.problem?.errors) refuse(error);
    else $("#start").disabled = false;
    announce(error.message, "error");
  }
});
onRestored(() => {
  isSubmitting = false;
  check();
});
$("#find").addEventListener("input", () => filterFields($("#sections"), $("#find").value, $("#found")));

const asked = new URLSearchParams(location.search);
const like = asked.get("like");
if (like) {
  try {
    const { spec } = await call(`/jobs/${encodeURIComponent(like)}`);
    take(spec.name ? { ...spec, name: await distinctName(spec.name) } : spec);
  } catch (error) {
    announce(`The spec of the other job could not be loaded. ${error.message}`, "error");
    take({ kind: "classifier" });
  }
} else if (asked.get("dataset")) take({ kind: "classifier", dataset: { name: asked.get("dataset") } });
else take({ kind: "classifier" });
