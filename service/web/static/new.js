// A new job: the form, the JSON beside it, and what the service says of both while one types.
import { $, $$, announce, bytes, debounce, duration, h, words } from "./dom.js";
import { call } from "./api.js";
import { SchemaForm } from "./schema-form.js";

const SECTIONS = [
  ["Basics", ["name", "dataset", "epochs", "batch_size", "seed", "tags", "priority"], true],
  ["Network", ["layers", "latent", "generator", "discriminator", "initializer", "dtype"], false],
  ["Training", ["optimizer", "schedule", "loss", "shuffle", "augmentation", "average_decay", "early_stopping"], false],
  ["Checkpoints, samples, health", ["checkpoint", "samples", "health"], false],
];
const MODELS = { classifier: "ClassifierSpec", gan: "GanSpec" };

const [{ components }, limits] = await Promise.all([call("/openapi.json"), call("/limits")]);
const form = new SchemaForm(components.schemas, { options: { "/dataset/name": limits.datasets }, onchange: changed });
let told = 0;
let shown = null;

// Kind and preset are the first choice: with another one the rest begins anew, but for the name and the tags.
function choose(kind, preset) {
  const kept = Object.fromEntries(["name", "tags"].filter((name) => name in form.sent).map((name) => [name, form.sent[name]]));
  take({ kind, ...(preset === limits.default_presets[kind] ? {} : { preset }), ...kept });
}

function take(document) {
  form.sent = document;
  changed();
}

function changed() {
  const text = JSON.stringify(form.sent, null, 2);
  if (document.activeElement !== $("#json")) $("#json").value = text;
  $("#json-fault").hidden = true;
  $("#curl").textContent = curl(text);
  $("#python").textContent = python(form.sent);
  check();
  draw();
}

function draw() {
  const kind = form.sent.kind;
  for (const button of $$("#kinds button")) button.setAttribute("aria-pressed", String(button.value === kind));
  if (!(kind in MODELS)) return;
  const preset = form.sent.preset ?? limits.default_presets[kind];
  if ($("#presets").dataset.kind !== kind) {
    $("#presets").dataset.kind = kind;
    $("#presets").replaceChildren(...limits.presets[kind].map((name) => h("button", { type: "button", value: name, onclick: () => choose(kind, name) }, name)));
  }
  for (const button of $$("#presets button")) button.setAttribute("aria-pressed", String(button.value === preset));
  if (shown !== kind) {
    shown = kind;
    form.fields.clear();
    const schema = components.schemas[MODELS[kind]];
    const named = new Set(SECTIONS.flatMap(([, names]) => names));
    const rest = Object.keys(schema.properties).filter((name) => !named.has(name) && !["kind", "preset"].includes(name));
    const sections = [...SECTIONS, ["More", rest, false]].map(([title, names, open]) => [title, names.filter((name) => name in schema.properties), open]);
    $("#sections").replaceChildren(
      ...sections.filter(([, names]) => names.length).map(([title, names, open]) => h("details", { class: "card section", open }, h("summary", {}, title), h("div", { class: "group" }, form.draw(schema, names)))),
    );
  }
  form.sync();
}

const check = debounce(180, async () => {
  const turn = (told += 1);
  let plan;
  try {
    plan = await call("/jobs?dry_run=true", { method: "POST", body: form.sent });
  } catch (error) {
    if (turn === told) refuse(error);
    return;
  }
  if (turn !== told) return;
  form.filled = plan.resolved;
  draw();
  form.tell([]);
  $("#faults").hidden = true;
  $("#start").disabled = false;
  $("#cost").hidden = false;
  const seconds = plan.estimated_seconds;
  const facts = {
    Parameters: plan.parameters.toLocaleString("en"),
    Batches: plan.steps.toLocaleString("en"),
    "Time, about": seconds === null ? "known once a job of this kind has ended here" : duration(seconds),
    Memory: bytes(plan.estimated_bytes),
    "A checkpoint": bytes(plan.checkpoint_bytes),
  };
  $("#cost").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  $("#verdict").textContent = "Ready to start";
  $("#verdict").className = "note good";
});

function refuse(error) {
  const faults = error.problem?.errors ?? [];
  const rest = form.tell(faults);
  $("#start").disabled = true;
  $("#verdict").textContent = faults.length ? `${faults.length} ${faults.length === 1 ? "field needs" : "fields need"} attention` : error.message;
  $("#verdict").className = "note error";
  $("#faults").hidden = rest.length === 0;
  $("#faults").replaceChildren(...rest.map((fault) => h("li", {}, h("code", {}, fault.pointer ?? ""), ` ${fault.detail}`)));
}

function curl(text) {
  const key = $("#json").dataset.keys ? " -H 'Authorization: Bearer KEY'" : "";
  return `curl ${location.origin}/jobs${key} -H 'Content-Type: application/json' -d '${text.replaceAll("'", String.raw`'\''`)}'`;
}

function python(value) {
  const literal = (part, indent) => {
    const inner = `${indent}    `;
    if (Array.isArray(part)) return part.every((item) => typeof item !== "object" || item === null) ? `[${part.map((item) => literal(item, "")).join(", ")}]` : `[\n${part.map((item) => `${inner}${literal(item, inner)},\n`).join("")}${indent}]`;
    if (part === null) return "None";
    if (typeof part === "boolean") return part ? "True" : "False";
    if (typeof part === "object" && Object.keys(part).length === 0) return "{}";
    if (typeof part === "object") return `{\n${Object.entries(part).map(([name, item]) => `${inner}${JSON.stringify(name)}: ${literal(item, inner)},\n`).join("")}${indent}}`;
    return JSON.stringify(part);
  };
  const key = $("#json").dataset.keys ? ', key="KEY"' : "";
  return `from service.client import Client\n\nwith Client("${location.origin}"${key}) as client:\n    job = client.submit(${literal(value, "    ")})\n    job = client.wait(job["id"])\n    print(job["status"], job["metrics"])`;
}

$("#json").addEventListener("input", () => {
  let document = null;
  try {
    document = JSON.parse($("#json").value);
    if (typeof document !== "object" || document === null || Array.isArray(document)) throw new SyntaxError("a spec is a JSON object");
  } catch (error) {
    told += 1;
    $("#json-fault").textContent = error.message;
    $("#json-fault").hidden = false;
    $("#json").setAttribute("aria-invalid", "true");
    $("#start").disabled = true;
    return;
  }
  $("#json").removeAttribute("aria-invalid");
  take(document);
});
for (const button of $$("[data-tab]")) {
  button.addEventListener("click", () => {
    for (const other of $$("[data-tab]")) other.setAttribute("aria-pressed", String(other === button));
    for (const panel of $$("[data-panel]")) panel.hidden = panel.dataset.panel !== button.dataset.tab;
  });
}
$("#copy").addEventListener("click", async () => {
  const panel = $$("[data-panel]").find((item) => !item.hidden);
  const text = panel.dataset.panel === "json" ? $("#json").value : panel.textContent;
  try {
    await navigator.clipboard.writeText(text);
    announce("Copied", "good");
  } catch {
    announce("The browser does not let this page copy; choose the text yourself.", "error");
  }
});
$("#kinds").append(...limits.kinds.map((kind) => h("button", { type: "button", value: kind, onclick: () => choose(kind, limits.default_presets[kind]) }, kind === "gan" ? "GAN" : words(kind))));
$("#new").addEventListener("submit", async (event) => {
  event.preventDefault();
  if ($("#start").disabled) return;
  $("#start").disabled = true;
  try {
    const job = await call("/jobs", { method: "POST", body: form.sent, headers: { "Idempotency-Key": crypto.getRandomValues(new Uint32Array(4)).join("-") } });
    location.assign(job.urls.page);
  } catch (error) {
    announce(error.message, "error");
    $("#start").disabled = false;
  }
});

const like = new URLSearchParams(location.search).get("like");
if (like) take((await call(`/jobs/${encodeURIComponent(like)}`)).spec);
else take({ kind: "classifier" });
