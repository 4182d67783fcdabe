// The layout of a spec's fields: those that are changed most often come first.
import { $$, counted, h } from "../../common/dom.js";
import { leaf } from "./fields.js";
import { pinned } from "./objects.js";

const BASIC_FIELDS = ["epochs", "optimizer/learning_rate", "seed", "dataset/name", "name"];
const SECTIONS = [
  ["Network", ["layers", "latent", "conditional", "generator", "discriminator", "initializer"]],
  ["Training", [
    "batch_size",
    "accumulate",
    "optimizer",
    "schedule",
    "loss",
    "augmentation",
    "early_stopping",
    "average_decay",
    "shuffle",
  ]],
  ["Checkpoints and samples", ["checkpoint", "samples"]],
  ["Health checks", ["health"]],
  ["Data range, validation, folds", ["dataset"]],
  ["Labels, queue, budget, reuse, precision", ["tags", "priority", "budget", "reuse", "dtype"]],
];
const LABELS = { "optimizer/learning_rate": "Learning rate", "dataset/name": "Dataset" };

export function drawSections(holder, form, root) {
  const listed = new Set(["kind", "preset", ...BASIC_FIELDS, ...SECTIONS.flatMap(([, names]) => names)]);
  // None, unless a spec gets a new field.
  const unlisted = Object.keys(root.properties).filter((name) => !listed.has(name));
  const sections = [...SECTIONS, ["More", unlisted]].map((
    [title, names],
  ) => [title, names.filter((name) => name in root.properties)]);
  const opened = new Set($$("details[open]", holder).map((section) => section.dataset.title));
  holder.replaceChildren(
    h(
      "section",
      { class: "card basics", "aria-label": "Basics" },
      h("div", { class: "group" }, BASIC_FIELDS.map((name) => drawBasicField(form, root, name))),
    ),
    ...sections.filter(([, names]) => names.length).map(([title, names]) =>
      h(
        "details",
        { class: "card section", dataset: { title, names: names.join(" ") }, open: opened.has(title) },
        h("summary", {}, title, h("span", { class: "small count" })),
        h("div", { class: "group" }, form.draw(root, names)),
      )
    ),
  );
}

function drawBasicField(form, root, name) {
  const path = name.split("/");
  if (path.length === 1) return form.field(root.properties[name], path);
  return pinned(form, path, (raw) => {
    const { schema, nullable } = form.schemas.resolve(raw);
    const field = leaf(form, schema, nullable, path, { label: LABELS[name] });
    if (name === "dataset/name") field.append(h("p", { class: "hint", id: "dataset-about" }));
    if (name === "optimizer/learning_rate") field.append(ownRates(form));
    return field;
  });
}

// Networks with their own optimizer do not use the learning rate above.
function ownRates(form) {
  const note = h("p", { class: "hint", hidden: true });
  form.fields.set("/optimizer/learning_rate note", {
    element: note,
    fault: h("p", { hidden: true }),
    sync: () => {
      const withOptimizer = ["generator", "discriminator"].filter((name) => form.value([name, "optimizer"]));
      note.hidden = withOptimizer.length === 0;
      note.textContent = withOptimizer.map((name) =>
        `The ${name} has its own optimizer with the learning rate ${
          form.value([name, "optimizer", "learning_rate"])
        }; change it under Network.`
      ).join(" ");
    },
  });
  return note;
}

// Whether only the dataset's name was set, which is among the basics.
const isNamed = (dataset) => typeof dataset === "string" || Object.keys(dataset ?? {}).every((name) => name === "name");

// How many fields of each section differ from the preset.
export function markSections(holder, sent) {
  for (const section of $$("details.section", holder)) {
    const changed = section.dataset.names.split(" ").filter((name) =>
      name in sent && !(name === "dataset" && isNamed(sent.dataset))
    );
    section.querySelector(".count").textContent = changed.length ? `${changed.length} changed` : "";
  }
}

const ABBREVIATIONS = {
  lr: "learning rate",
  bs: "batch size",
  wd: "weight decay",
  l2: "weight decay",
  bn: "batch norm",
  fc: "dense",
  mlp: "dense",
  cnn: "conv2d",
  convolution: "conv2d",
  ema: "average decay",
  aug: "augmentation",
  es: "early stopping",
  gp: "gradient penalty",
  sn: "spectral norm",
  ls: "label smoothing",
  ce: "cross entropy",
  bce: "binary cross entropy",
  mse: "squared error",
  mae: "absolute error",
  cv: "folds",
};

// Shows the fields whose name or help contains the text, and all fields of a matching object; without a text, all
// fields.
export function filterFields(holder, text, counter) {
  const typed = text.trim().toLowerCase().replaceAll("_", " ");
  const query = ABBREVIATIONS[typed] ?? typed;
  const fields = $$(".field", holder);
  const matches = new Set(fields.filter((field) => searchTextOf(field).includes(query)));
  const isShown = (field) =>
    matches.has(field) ||
    fields.some((other) => matches.has(other) && (other.contains(field) || field.contains(other)));
  for (const field of fields) field.classList.toggle("unfound", !isShown(field));
  for (const section of $$("details.section, .basics", holder)) {
    const hasMatch = Boolean(section.querySelector(".field:not(.unfound)"));
    section.classList.toggle("unfound", !hasMatch);
    if (query && hasMatch && section.matches("details")) section.open = true;
  }
  const count = [...matches].filter((field) => !field.hidden).length;
  counter.textContent = query ? `${query === typed ? "" : `${query}: `}${counted(count, "setting")}` : "";
}

// The searchable text of a field itself; the fields of an object are searched separately.
function searchTextOf(field) {
  const parts = field.matches(".nested")
    ? [...field.children].filter((child) => child.matches("legend, .hint, .choice"))
    : [field];
  return `${field.dataset.name} ${field.dataset.search ?? ""} ${parts.map((part) => part.textContent).join(" ")}`
    .toLowerCase().replaceAll(/[._]/g, " ");
}
