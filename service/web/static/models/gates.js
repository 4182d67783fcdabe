// The editor of the gates of an alias: a row for each, with the fields of its kind.
import { $, $$, announce, h, keyMetrics } from "../common/dom.js";
import { call } from "../common/api.js";
import { faultsOf } from "../common/dialogs.js";

// By kind: the words before and between the fields, and what a new gate begins with.
const KINDS = {
  metric: {
    name: "Metric",
    begins: { metric: "", min: "" },
    fields: { metric: "Metric", min: "at least", max: "at most" },
  },
  better_than: {
    name: "Better than a version",
    begins: { better_than: "@champion", metric: "", seeds: 5, confidence: 0.95, margin: 0 },
    fields: {
      better_than: "Better than",
      metric: "in",
      seeds: "seeds",
      confidence: "confidence",
      margin: "by more than",
    },
  },
  reproduced: {
    name: "Reproduced",
    begins: { reproduced: true },
    fields: {},
    text: "Its job was reproduced with the same bits",
  },
  certificate: {
    name: "Certified",
    begins: { certificate: true },
    fields: {},
    text: "Its checkpoint has a certificate that verifies with a key of this service",
  },
  max_bytes: { name: "Size", begins: { max_bytes: 1_000_000 }, fields: { max_bytes: "Checkpoint of at most (bytes)" } },
  approvals: { name: "Approvals", begins: { approvals: 1 }, fields: { approvals: "Approved by this many other keys" } },
};
const TEXTS = new Set(["metric", "better_than"]);
const kindOf = (gate) =>
  ["better_than", "reproduced", "certificate", "max_bytes", "approvals", "metric"].find((name) => name in gate);

function row(gate) {
  const kind = KINDS[kindOf(gate)];
  const fields = Object.entries(kind?.fields ?? {}).map(([name, label]) => {
    const options = TEXTS.has(name)
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
  const content = kind ? [kind.text && h("span", {}, kind.text), ...fields] : [h("code", {}, JSON.stringify(gate))];
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
  for (const input of $$("[data-field]", element)) {
    const { field } = input.dataset;
    if (input.value.trim() === "") delete gate[field];
    else gate[field] = TEXTS.has(field) ? input.value.trim() : Number(input.value);
  }
  return gate;
}

// path(alias): where the gates of an alias are sent. onchange: called after a change.
export function wireGates(path, onchange) {
  let alias = "";
  $("#gate-metrics").replaceChildren(...keyMetrics().map((name) => h("option", { value: name })));
  $("#gate-kinds").replaceChildren(
    h("span", { class: "small muted" }, "Add a gate:"),
    ...Object.values(KINDS).map(({ name, begins }) =>
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
