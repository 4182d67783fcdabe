// The choice of a dataset: size, and whether it has to be downloaded first.
import { bytes, counted, h } from "../common/dom.js";

// select(path, name): called when a dataset is chosen.
export function datasetControl(datasets, select) {
  const byName = new Map(datasets.map((item) => [item.name, item]));
  return (_form, path, id) => {
    const element = h(
      "select",
      { id },
      datasets.map((item) =>
        h("option", { value: item.name, disabled: Boolean(item.problem) }, `${item.name} · ${sizeOf(item)}`)
      ),
    );
    element.addEventListener("change", () => select(path, element.value));
    const unknown = h("option", { hidden: true });
    element.append(unknown);
    return {
      element,
      sync: (value) => {
        unknown.value = byName.has(value) ? "" : String(value ?? "");
        unknown.textContent = unknown.value;
        element.value = String(value ?? "");
      },
    };
  };
}

// The description of the selected dataset, below its field.
export function aboutDataset(item) {
  if (!item) return [];
  const isTable = item.kind === "table";
  const size = isTable ? `a table of ${counted(item.columns.length, "column")}` : pixels(item);
  const facts = [
    `${item.title}: ${size}, ${
      item.task === "regression" ? `a number to predict (${item.target})` : `${item.classes} classes`
    }, ${number(item.train_count)} training and ${number(item.validation_count)} validation ${
      isTable ? "rows" : "images"
    }.`,
  ];
  if (needsDownload(item)) {
    facts.push(
      ` ${item.state_reason ?? `It is not on this machine: a job downloads it${sizeOfDownload(item)} when it starts.`}`,
    );
  }
  return facts;
}

function sizeOf(item) {
  if (item.problem) return "unusable files";
  const size = item.kind === "table"
    ? `${counted(item.columns.length, "column")}, ${number(item.train_count)} training rows`
    : `${sides(item)}${isColour(item) ? " colour" : ""}, ${number(item.train_count)} training images`;
  if (item.state === "unavailable") return `${size}, not available`;
  return needsDownload(item) ? `${size}, needs download${sizeOfDownload(item)}` : size;
}

const sides = (item) => item.image_shape.slice(0, 2).join(" × ");
const isColour = (item) => item.image_shape.length > 2;
const pixels = (item) => `${sides(item)} pixels${isColour(item) ? " in colour" : ""}`;
const needsDownload = (item) => (item.state ? item.state !== "ready" : !item.available);
const sizeOfDownload = (item) => (item.download_bytes ? ` (${bytes(item.download_bytes)})` : "");
const number = (count) => count.toLocaleString("en");
