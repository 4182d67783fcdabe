// A new job: the form, the JSON beside it, and live validation by the service.
import { $, announce, capital, counted, debounce, h, kindOf } from "../common/dom.js";
import { call, onRestored } from "../common/api.js";
import { showFault, showPlan } from "./cost.js";
import { aboutDataset, datasetControl } from "./dataset.js";
import { Editor } from "./editor.js";
import { PresetCards } from "./presets.js";
import { isObject, merge, put } from "./schema/document.js";
import { SchemaForm } from "./schema/schema-form.js";
import { drawSections, filterFields, markSections } from "./schema/sections.js";
import { SweepCard } from "./sweep-card.js";
import { joinSweep, locate, SEED, splitSweep, Tries } from "./sweep-fields.js";

const KEPT_FIELDS = ["name", "tags", "priority", "dataset", "seed"]; // fields that are kept when the preset changes

const [{ $defs: parts }, { data: presets }, { data: datasets }] = await Promise.all([
  call("/schema.json"),
  call("/presets"),
  call("/datasets"),
]).catch(giveUp);
const tries = new Tries(() => take(joinSweep(form.sent, tries.sweep)));
const form = new SchemaForm(parts, {
  controls: { "/dataset/name": datasetControl(datasets, chooseDataset) },
  pinned: ["/dataset/name", "/optimizer/learning_rate"],
  tries,
  onchange: () => take(joinSweep(form.sent, tries.sweep)),
});
const cards = new PresetCards(presets, choose, datasets);
const editor = new Editor({ changed: take, broken });
const sweepCard = new SweepCard($("#sweep"), tries, (path) => form.value(path));
const bases = new Map(); // preset and dataset -> the preset's spec for that dataset, once loaded
let documentVersion = 0;
let shownKind = null; // the kind whose fields are shown
let isSubmitting = false;

// Without schema, presets and datasets there is no form: shows the reason, and never resolves.
function giveUp({ message }) {
  showFault("The form could not be loaded");
  $("#faults").hidden = false;
  $("#faults").replaceChildren(
    h(
      "li",
      {},
      `${message} `,
      h("button", { type: "button", class: "slim", onclick: () => location.reload() }, "Reload the page"),
    ),
  );
  return new Promise(() => {});
}

// A dataset with a number to predict needs a regressor, and one with classes another kind.
function chooseDataset(path, name) {
  const kind = kindFor(name);
  if (predictsNumber(kind) !== predictsNumber(form.sent.kind)) {
    choose(kind, cards.defaultOf({ kind, dataset: name }).name);
  }
  form.set(path, name);
  tries.follow();
}

function predictsNumber(kind) {
  return kindOf(kind).task === "regression";
}

function kindFor(name) {
  return cards.datasetOf(name)?.default_kind ?? "classifier";
}

// Selecting another preset resets all fields except those that presets do not set. Settings with several values get
// others, around those of the preset.
function choose(kind, preset) {
  const previousDocument = structuredClone(joinSweep(form.sent, tries.sweep));
  const previousJob = form.sent;
  const keptFields = Object.fromEntries(
    KEPT_FIELDS.filter((name) => name in previousJob && (name !== "dataset" || previousJob.kind === kind)).map((
      name,
    ) => [name, previousJob[name]]),
  );
  if (typeof keptFields.dataset === "object") {
    keptFields.dataset = { name: keptFields.dataset.name ?? form.value(["dataset", "name"]) };
  }
  const isDefault = cards.of({ kind, ...keptFields }).name === preset;
  const { seeds, space = {} } = tries.sweep ?? {};
  take(joinSweep({ kind, ...(isDefault ? {} : { preset }), ...keptFields }, seeds ? { space: {}, seeds } : null));
  for (const setting of Object.keys(space)) {
    if (form.value(setting.split(".")) !== undefined) tries.openers.get(setting)?.();
  }
  const discarded = Object.keys(previousJob).filter((name) => !["kind", "preset", ...KEPT_FIELDS].includes(name));
  if (Object.keys(space).length) discarded.push("the values to try");
  $("#discarded").replaceChildren(
    ...(discarded.length
      ? [
        `Your changes to ${discarded.join(", ")} were discarded. `,
        h("button", {
          type: "button",
          class: "slim",
          onclick: () => take(previousDocument),
        }, "Undo"),
      ]
      : []),
  );
}

function take(document, options = {}) {
  $("#discarded").replaceChildren();
  documentVersion += 1; // pending responses refer to an earlier document
  editor.show(document, options);
  remember();
  const { job, sweep } = splitSweep(document);
  const preset = cards.of(job);
  form.sent = job;
  tries.sweep = sweep;
  $("#new").classList.toggle("is-sweep", sweep !== null);
  $("#start").textContent = sweep ? "Start sweep" : "Start training";
  if (preset) draw(preset);
  sweepCard.show(); // its defaults depend on the base
  $("#form").inert = !preset; // the kind or preset is unknown, and so is the form to show
  $("#new").setAttribute("aria-busy", "true"); // until the service has validated it
  check();
}

function draw(preset) {
  const root = parts[`${capital(preset.kind)}Spec`];
  const base = baseOf(preset);
  if (base !== form.base) form.networks.clear();
  form.load(root, base, form.sent);
  cards.show(preset, form.sent);
  if (shownKind !== preset.kind) {
    shownKind = preset.kind;
    form.fields.clear();
    tries.openers.clear();
    tries.prefills.clear();
    drawSections($("#sections"), form, root);
  }
  form.sync();
  markSections($("#sections"), form.sent);
  const dataset = datasets.find(({ name }) => name === form.value(["dataset", "name"]));
  const augmentation = form.fields.get("/augmentation")?.element;
  if (augmentation) augmentation.hidden = dataset?.kind === "table" && !form.sent.augmentation; // it is for images
  $("#dataset-about").replaceChildren(
    ...aboutDataset(dataset),
    " ",
    h("a", { href: "/ui/datasets#upload-title" }, "Use your own data"),
    " (photos or a CSV file), ",
    h("a", { href: "/ui/datasets" }, "all datasets"),
  );
}

// The preset's spec for the selected dataset: its last layers depend on the dataset, and the service resolves them.
function baseOf(preset) {
  const dataset = typeof form.sent.dataset === "string"
    ? form.sent.dataset
    : (form.sent.dataset?.name ?? preset.spec.dataset.name);
  if (dataset === preset.spec.dataset.name || !datasets.some(({ name }) => name === dataset)) return preset.spec;
  const key = `${preset.kind} ${preset.name} ${dataset}`;
  if (!bases.has(key)) {
    bases.set(key, preset.spec);
    const applyResolved = (resolved) => {
      if (!resolved) return;
      bases.set(key, resolved);
      if (cards.of(form.sent) !== preset) return;
      draw(preset);
      tries.follow();
    };
    plan({ kind: preset.kind, preset: preset.name, dataset: { name: dataset } }).then(
      ({ resolved }) => applyResolved(resolved),
      ({ problem }) => applyResolved(problem?.resolved),
    );
  }
  return bases.get(key);
}

const plan = (spec) => call("/jobs?dry_run=true", { method: "POST", body: spec });

// The text stays with the entry of the browser's history: reloading the page and going back to it keep the edits.
function remember() {
  try {
    history.replaceState({ ...history.state, spec: editor.text }, "");
  } catch {
    // Safari limits the number of calls: the next change is kept.
  }
}

const check = debounce(180, async () => {
  if (!editor.isValid) return;
  const version = documentVersion;
  // The base of a sweep is also validated as a job, which returns the shapes of its layers and its cost.
  const isSweep = tries.sweep !== null;
  const requests = isSweep
    ? [plan(form.sent), call("/sweeps?dry_run=true", { method: "POST", body: editor.text })]
    : [plan(editor.text)];
  const [job, sweep = job] = await Promise.allSettled(requests);
  if (version !== documentVersion) return;
  if (isSweep) applyDryRun(job.value ?? job.reason.problem ?? {});
  if (sweep.reason) return void refuse(sweep.reason); // the base alone may be invalid if the space replaces a value
  $("#new").removeAttribute("aria-busy");
  applyDryRun(job.value ?? {});
  showFieldFaults([]);
  $("#faults").hidden = true;
  showPlan(job.value ?? null, isSweep ? sweep.value : null);
  $("#start").disabled = isSubmitting;
});

// Applies the resolved values and the shapes of all layers.
function applyDryRun({ resolved, networks }) {
  if (resolved) form.filled = resolved;
  if (networks) form.networks = new Map(networks.map((network) => [network.pointer.slice(1), network]));
}

function refuse({ message, problem }) {
  $("#new").removeAttribute("aria-busy");
  if (problem?.code === "malformed_json") {
    editor.refuse(`Line ${problem.line}, column ${problem.column}: ${problem.detail}`);
    return;
  }
  const faults = problem?.errors ?? [];
  applyDryRun(problem ?? {});
  if (!tries.sweep && !problem?.networks && faults.length) form.networks.clear();
  const unplaced = showFieldFaults(faults);
  showFault(
    faults.length ? `${counted(faults.length, "field")} ${faults.length === 1 ? "needs" : "need"} attention` : message,
  );
  $("#faults").hidden = unplaced.length === 0;
  $("#faults").replaceChildren(
    ...unplaced.map((fault) => h("li", {}, h("code", {}, fault.pointer ?? ""), ` ${fault.detail} `, ...offer(fault))),
  );
}

// Shows each fault at its field; returns those without one.
function showFieldFaults(faults) {
  return tries.sweep ? form.showFaults(locate(sweepCard.showFaults(faults)), offer) : form.showFaults(faults, offer);
}

// A button for the service's suggestion.
function offer(fault) {
  if (!fault.suggestion || !fault.pointer?.startsWith("#/")) return [];
  const isLayer = fault.code === "wrong_shape" && /\/layers\/\d+$/.test(fault.pointer);
  return [
    h("button", {
      type: "button",
      class: "slim",
      onclick: () => form.accept(fault),
    }, isLayer ? `Insert ${fault.suggestion} before it` : `Use ${fault.suggestion}`),
  ];
}

function broken() {
  documentVersion += 1; // pending responses refer to an earlier text
  remember();
  $("#new").removeAttribute("aria-busy");
  showFieldFaults([]);
  $("#faults").hidden = true;
  showFault("The JSON is not valid");
}

// Each text has one idempotency key: after a lost response, a retry with the same key does not create a second job.
const attempts = new Map(); // text -> idempotency key
$("#new").addEventListener("submit", async (event) => {
  event.preventDefault();
  if ($("#start").disabled || isSubmitting) return;
  isSubmitting = true;
  $("#start").disabled = true;
  const { text } = editor;
  if (!attempts.has(text)) attempts.set(text, crypto.getRandomValues(new Uint32Array(4)).join("-"));
  try {
    const job = await call(tries.sweep ? "/sweeps" : "/jobs", {
      method: "POST",
      body: text,
      headers: { "Idempotency-Key": attempts.get(text) },
    });
    attempts.delete(text); // submitting it again later is meant to create another job
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

// The next of first, first-2, first-3, ... that is not used in a list.
async function distinctName(name, list) {
  const stem = name.replace(/-\d+$/, "");
  const { data } = await call(list(stem));
  const used = new Set(data.map((item) => item.name));
  let number = 2;
  while (used.has(`${stem}-${number}`)) number += 1;
  return `${stem}-${number}`;
}

// The spec of a job with a change that its health suggests: advice is "mode_collapse.0", a finding and a position.
function advised({ spec, health }, advice) {
  const [code, position] = advice.split(".");
  const settings = health.find((finding) => finding.code === code)?.advice[position]?.settings;
  if (!settings) {
    announce("The job no longer has this advice: the form shows its spec without changes.", "error");
    return spec;
  }
  // As for a chosen preset: other settings of the job would override those of the preset.
  const kept = "preset" in settings
    ? Object.fromEntries(Object.entries(spec).filter(([name]) => ["kind", ...KEPT_FIELDS].includes(name)))
    : spec;
  const change = {};
  for (const [name, value] of Object.entries(settings)) put(change, name.split("."), value, () => ({}));
  for (const [name, value] of Object.entries(change)) {
    if (typeof kept[name] === "string" && isObject(value)) change[name] = { name: kept[name], ...value };
  }
  return merge(kept, change);
}

// Starts with the spec of another job or sweep.
async function copySpec(address, list, failure) {
  try {
    const copied = await call(address);
    const spec = query.has("advice") ? advised(copied, query.get("advice")) : copied.spec;
    take(spec.name ? { ...spec, name: await distinctName(spec.name, list) } : spec);
  } catch (error) {
    announce(`${failure} ${error.message}`, "error");
    take({ kind: "classifier" });
  }
}

const query = new URLSearchParams(location.search);
const [jobId, sweepId, dataset] = ["like", "sweep", "dataset"].map((name) => query.get(name));
const isNew = performance.getEntriesByType("navigation")[0]?.type === "navigate"; // by a link, even on this page
const kept = !isNew && history.state?.spec;
if (kept) {
  take({ kind: "classifier" });
  editor.type(kept);
} else if (sweepId) {
  await copySpec(
    `/sweeps/${encodeURIComponent(sweepId)}`,
    () => "/sweeps?limit=100",
    "The other sweep could not be loaded.",
  );
} else if (jobId) {
  await copySpec(
    `/jobs/${encodeURIComponent(jobId)}`,
    (stem) => `/jobs?${new URLSearchParams({ q: stem, limit: 100 })}`,
    "The spec of the other job could not be loaded.",
  );
} else {take({
    kind: kindFor(dataset),
    ...(dataset &&
      {
        ...(datasets.find(({ name }) => name === dataset)?.uploaded && { name: dataset }),
        dataset: { name: dataset },
      }),
  });}
if (query.has("several")) { for (const setting of [SEED, "optimizer.learning_rate"]) tries.openers.get(setting)?.(); }
