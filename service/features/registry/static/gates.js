// The editor of the gates of an alias: a row for each, with the fields of its kind.
import { $, $$, announce, h, keyMetrics } from "../common/dom.js";
import { call } from "../common/api.js";
import { faultsOf } from "../common/dialogs.js";

// The kinds: by which field they are told, the words before and between their fields, and what a new gate begins with.
const KINDS = JSON.parse($("#gate-forms").textContent);
// Fields of a kind that it shares with others are told by another one: the last kind is looked for first.
export const kindOf = (gate) =>
  KINDS.findLast(({ key, names }) => key in gate && Object.keys(gate).every((name) => names.includes(name)));

function row(gate) {
  const kind = kindOf(gate);
  const fields = Object.entries(kind?.labels ?? {}).map(([name, label]) => {
    const options = kind.texts.includes(name)
      ? { list: name === "metric" ? "gate-metrics" : undefined, required: true }
      : { type: "number", step: "any" };
    return h("label", {}, label, h("input", { "data-field": name, value: gate[name] ?? "", ...options }));
  });
  const remove = h("button", {
    type: "button",
    class: "slim",
    "aria-label": `Remove the gate ${kind?.name ?? ""}`,
    onclick: () => element.remove(),
  }, "Remove");
  // A gate of a kind that this page does not know stays as it is.
  const content = kind
    ? [kind.text !== "" && h("span", {}, kind.text), ...fields]
    : [h("code", {}, JSON.stringify(gate))];
  const element = h(
    "div",
    {
      class: "gate-row",
      role: "group",
      "aria-label": `Gate: ${kind?.name ?? "of another kind"}`,
      "data-gate": JSON.stringify(gate),
    },
    ...content,
    remove,
  );
  return element;
}

function valueOf(element) {
  const gate = JSON.parse(element.dataset.gate);
  const texts = kindOf(gate)?.texts ?? [];
  for (const input of $$("[data-field]", element)) {
    const { field } = input.dataset;
    if (input.value.trim() === "") delete gate[field];
    else gate[field] = texts.includes(field) ? input.value.trim() : Number(input.value);
  }
  return gate;
}

// path(alias): where the gates of an alias are sent. onchange: called after a change.
export function wireGates(path, onchange) {
  let alias = "";
  $("#gate-metrics").replaceChildren(...keyMetrics().map((name) => h("option", { value: name })));
  $("#gate-kinds").replaceChildren(
    h("span", { class: "small muted" }, "Add a gate:"),
    ...KINDS.map(({ name, begins }) =>
      h("button", {
        type: "button",
        class: "slim",
        onclick: () => {
          const added = row(begins);
          $("#gate-rows").append(added);
          $("input, button", added).focus();
        },
      }, name)
    ),
  );
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-gates]");
    if (!button) return;
    alias = button.dataset.gates;
    $("#gates-title").textContent = alias ? `Gates of @${alias}` : "Gates of an alias";
    $("#gates-alias-field").hidden = alias !== "";
    $("#gates-alias").value = "";
    $("#gates-error").hidden = true;
    $("#gate-rows").replaceChildren(...JSON.parse(button.dataset.value).map(row));
    $("#gates").showModal();
  });
  $("#gates form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const name = alias || $("#gates-alias").value.trim().replace(/^@/, "");
    if (!name) return $("#gates-alias").focus();
    $("#gates-go").disabled = true;
    try {
      await call(path(name), { method: "PUT", body: { gates: $$(".gate-row").map(valueOf) } });
      $("#gates").close();
      announce("Saved", "good");
      await onchange();
    } catch (error) {
      // A fault names a gate by its place, from 0; people count from 1.
      $("#gates-error").textContent = faultsOf(error).replaceAll(
        /\bgates\/(\d+)\/?/g,
        (_, index) => `gate ${Number(index) + 1} `,
      );
      $("#gates-error").hidden = false;
    } finally {
      $("#gates-go").disabled = false;
    }
  });
}
