// The dialog for the table's columns and their order. Changes apply immediately.
import { $, $$, announce, h } from "../common/dom.js";
import { call } from "../common/api.js";
import { headingOf } from "./cells.js";
import { requestSequence } from "../common/latest.js";

const ALWAYS_SHOWN = new Set(["name", "tags", "starred", "note"]); // always part of a job's row
const MAX_COLUMNS = 50;

// columns(): names of the visible columns; change(names): replaces them.
export function offerColumns({ columns, defaults, known, address, change }) {
  const dialog = $("#columns");
  const [search, pick, order] = [$("#columns-search"), $("#columns-pick"), $("#columns-shown")];
  const nextRequest = requestSequence();
  let available = [];
  const headings = new Map();
  const headingFor = (name) => headings.get(name) ?? name;

  async function open() {
    for (const column of known()) headings.set(column.name, headingOf(column));
    search.value = "";
    draw();
    dialog.showModal();
    search.focus();
    const isNewest = nextRequest();
    try {
      const { data } = await call(address());
      if (!isNewest()) return;
      available = data.filter((column) => !ALWAYS_SHOWN.has(column.name));
    } catch (error) {
      if (isNewest()) announce(error.message, "error");
    }
    for (const column of available) headings.set(column.name, headingOf(column));
    draw();
  }

  function show(names) {
    if (names.length > MAX_COLUMNS) announce(`At most ${MAX_COLUMNS} columns fit.`, "error");
    else change(names.length ? names : [...defaults]);
    draw(); // unchecks a box that was refused
  }

  function draw() {
    drawOrder();
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = available.filter((column) =>
      words.every((word) => `${column.name} ${headingOf(column)} ${column.description}`.toLowerCase().includes(word))
    );
    const groups = [
      ["Metrics", matches.filter((column) => column.metric !== null)],
      ["Settings that differ", matches.filter((column) => column.values > 1)],
      ["Job", matches.filter((column) => column.metric === null && column.values === null)],
      ["Settings that are equal", matches.filter((column) => column.values === 1)],
    ];
    pick.replaceChildren(
      ...groups.filter(([, items]) => items.length).map(([title, items]) =>
        h("fieldset", {}, h("legend", {}, title), ...items.map(box))
      ),
      matches.length || !available.length ? "" : h("p", { class: "muted" }, "No column matches."),
    );
  }

  function box(column) {
    const isShown = columns().includes(column.name);
    const toggle = () => show(isShown ? columns().filter((name) => name !== column.name) : [...columns(), column.name]);
    return h(
      "label",
      { title: column.description },
      h("input", {
        type: "checkbox",
        name: column.name,
        checked: isShown,
        onchange: () => keepFocus(toggle, `input[name="${CSS.escape(column.name)}"]`, pick),
      }),
      h("span", {}, headingOf(column)),
      column.values > 1 ? h("span", { class: "muted small" }, `${column.values} values`) : "",
    );
  }

  function drawOrder() {
    const names = columns();
    order.replaceChildren(
      ...names.map((name, index) => {
        const swapped = (to) =>
          names.map((other, position) => (position === index ? names[to] : position === to ? name : other));
        const button = (label, text, disabled, action) =>
          h("button", {
            class: "quiet icon",
            type: "button",
            disabled,
            "aria-label": `${label}: ${headingFor(name)}`,
            title: label,
            dataset: { what: label, column: name },
            onclick: () => keepFocus(action, `[data-what="${label}"][data-column="${CSS.escape(name)}"]`, order),
          }, text);
        return h(
          "li",
          {},
          h("span", { class: "grow" }, headingFor(name)),
          button("Move up", "↑", index === 0, () => show(swapped(index - 1))),
          button("Move down", "↓", index === names.length - 1, () => show(swapped(index + 1))),
          button("Remove", "✕", names.length === 1, () => show(names.filter((other) => other !== name))),
        );
      }),
    );
  }

  // Calls a function that redraws, then restores the keyboard focus.
  function keepFocus(action, selector, root) {
    action();
    const restored = $(selector, root);
    (restored && !restored.disabled ? restored : $$("button:not(:disabled), input", root)[0])?.focus();
  }

  search.addEventListener("input", draw);
  $("#columns-reset").addEventListener("click", () => show([...defaults]));
  $("#choose-columns").addEventListener("click", open);
}
