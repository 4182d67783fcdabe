// What the list of jobs is filtered by: its fields, and a button for each term that has no field.
import { $, h } from "./dom.js";
import { shortId } from "./job-facts.js";

const TERMS = { tag: "Tag", name: "Name", preset: "Preset", dataset: "Dataset", spec: "Spec", parent: "Parent", sweep: "Sweep", without: "Without" };

// asked: the question; titles: of parents and sweeps, by id; change(news) asks another one.
export function showFilter(asked, titles, change) {
  const order = $("#filters [name=sort]");
  if (![...order.options].some((option) => option.value === asked.sort)) {
    const words = asked.sort.replace(/^-/, "").replace(":", " ").replaceAll("_", " ");
    order.append(h("option", { value: asked.sort }, `${words} ${asked.sort.startsWith("-") ? "↓" : "↑"}`));
  }
  for (const name of ["q", "kind", "sort", "group"]) {
    const field = $(`#filters [name=${name}]`);
    if (field.value !== asked[name]) field.value = asked[name];
  }
  $("#starred").setAttribute("aria-pressed", asked.starred === "true");
  const term = (name, value) => {
    const shown = titles[name] ? (titles[name](value) ?? shortId(value)) : name === "spec" ? value.replace("sha256:", "").slice(0, 10) : value;
    const clear = Array.isArray(asked[name]) ? () => asked[name].filter((other) => other !== value) : () => "";
    return h("button", { class: "slim", type: "button", "aria-label": `Remove the filter ${TERMS[name]}: ${shown}`, onclick: () => change({ [name]: clear() }) }, `${TERMS[name]}: ${shown} ✕`);
  };
  $("#terms").replaceChildren(...Object.keys(TERMS).flatMap((name) => [asked[name]].flat().filter(Boolean).map((value) => term(name, value))));
}
