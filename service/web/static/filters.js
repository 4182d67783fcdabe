// The filters of the job list: its fields, and a button for each filter that has no field.
import { $, h } from "./dom.js";
import { shortId } from "./job-facts.js";

const TERMS = { tag: "Tag", name: "Name", preset: "Preset", dataset: "Dataset", spec: "Spec", parent: "Parent", sweep: "Sweep", without: "Without" };

// urlState: what the page shows; titles: of parents and sweeps, by id; change(news) applies changed values.
export function showFilter(urlState, titles, change) {
  const order = $("#filters [name=sort]");
  if (![...order.options].some((option) => option.value === urlState.sort)) {
    const words = urlState.sort.replace(/^-/, "").replace(":", " ").replaceAll("_", " ");
    order.append(h("option", { value: urlState.sort }, `${words} ${urlState.sort.startsWith("-") ? "↓" : "↑"}`));
  }
  for (const name of ["q", "kind", "sort", "group"]) {
    const field = $(`#filters [name=${name}]`);
    if (field.value !== urlState[name]) field.value = urlState[name];
  }
  $("#starred").setAttribute("aria-pressed", urlState.starred === "true");
  const term = (name, value) => {
    const shown = titles[name] ? (titles[name](value) ?? shortId(value)) : name === "spec" ? value.replace("sha256:", "").slice(0, 10) : value;
    const clear = Array.isArray(urlState[name]) ? () => urlState[name].filter((other) => other !== value) : () => "";
    return h("button", { class: "slim", type: "button", "aria-label": `Remove the filter ${TERMS[name]}: ${shown}`, onclick: () => change({ [name]: clear() }) }, `${TERMS[name]}: ${shown} ✕`);
  };
  $("#terms").replaceChildren(...Object.keys(TERMS).flatMap((name) => [urlState[name]].flat().filter(Boolean).map((value) => term(name, value))));
}
