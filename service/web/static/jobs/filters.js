// The filters of the job list: its fields, and a button for each filter that has no field.
import { $, h } from "../common/dom.js";
import { shortId } from "../common/job-facts.js";

const TERMS = {
  tag: "Tag",
  name: "Name",
  preset: "Preset",
  dataset: "Dataset",
  spec: "Spec",
  parent: "Parent",
  sweep: "Sweep",
  without: "Without",
};

// urlState: the current query; titles: functions from an id to the title of a parent or sweep; change(values): applies
// changes.
export function showFilter(urlState, titles, change) {
  const sortField = $("#filters [name=sort]");
  if (![...sortField.options].some((option) => option.value === urlState.sort)) {
    const text = urlState.sort.replace(/^-/, "").replace(":", " ").replaceAll("_", " ");
    sortField.append(h("option", { value: urlState.sort }, `${text} ${urlState.sort.startsWith("-") ? "↓" : "↑"}`));
  }
  for (const name of ["q", "kind", "sort", "group"]) {
    const field = $(`#filters [name=${name}]`);
    if (field.value !== urlState[name]) field.value = urlState[name];
  }
  $("#starred").setAttribute("aria-pressed", urlState.starred === "true");
  const term = (name, value) => {
    const label = titles[name]
      ? (titles[name](value) ?? shortId(value))
      : name === "spec"
      ? value.replace("sha256:", "").slice(0, 10)
      : value;
    const clear = Array.isArray(urlState[name]) ? () => urlState[name].filter((other) => other !== value) : () => "";
    return h("button", {
      class: "slim",
      type: "button",
      "aria-label": `Remove the filter ${TERMS[name]}: ${label}`,
      onclick: () => change({ [name]: clear() }),
    }, `${TERMS[name]}: ${label} ✕`);
  };
  $("#terms").replaceChildren(
    ...Object.keys(TERMS).flatMap((name) => [urlState[name]].flat().filter(Boolean).map((value) => term(name, value))),
  );
}
