// The dialog for the table's columns and their order. Changes apply immediately.
import { $, $$, announce, h } from "./dom.js";
import { call } from "./api.js";
import { headingOf } from "./cells.js";
import { turns } from "./latest.js";

const ALWAYS_SHOWN = new Set(["name", "tags", "starred", "note"]); // shown with each job, whatever the columns are
const MOST = 50;

// columns(): names of the columns that are shown; change(names): show others.
export function offerColumns({ columns, defaults, known, address, change }) {
  const dialog = $("#columns");
  const [search, pick, order] = [$("#columns-search"), $("#columns-pick"), $("#columns-shown")];
  const turn = turns();
  let available = [];
  const headings = new Map();
  const headingFor = (name) => headings.get(name) ?? name;

  async function open() {
    for (const column of known()) headings.set(column.name, headingOf(column));
    search.value = "";
    draw();
    dialog.showModal();
    search.focus();
    const isNewest = turn();
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
    if (names.length > MOST) announce(`At most ${MOST} columns fit.`, "error");
    else change(names.length ? names : [...defaults]);
    draw(); // a box that was refused is not checked
  }

  function draw() {
    drawOrder();
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = available.filter((column) => words.every((word) => `${column.name} ${headingOf(column)} ${column.description}`.toLowerCase().includes(word)));
    const groups = [
      ["Metrics", found.filter((column) => column.metric !== null)],
      ["Settings that differ", found.filter((column) => column.values > 1)],
      ["Job", found.filter((column) => column.metric === null && column.values === null)],
      ["Settings that are equal", found.filter((column) => column.values === 1)],
    ];
    pick.replaceChildren(
      ...groups.filter(([, items]) => items.length).map(([title, items]) => h("fieldset", {}, h("legend", {}, title), ...items.map(box))),
      found.length || !available.length ? "" : h("p", { class: "muted" }, "No column matches."),
    );
  }

  function box(column) {
    const shown = columns().includes(column.name);
    const toggle = () => show(shown ? columns().filter((name) => name !== column.name) : [...columns(), column.name]);
    return h(
      "label",
      { title: column.description },
      h("input", { type: "checkbox", name: column.name, checked: shown, onchange: () => kept(toggle, `input[name="${CSS.escape(column.name)}"]`, pick) }),
      h("span", {}, headingOf(column)),
      column.values > 1 ? h("span", { class: "muted small" }, `${column.values} values`) : "",
    );
  }

  function drawOrder() {
    const names = columns();
    order.replaceChildren(
      ...names.map((name, at) => {
        const swapped = (to) => names.map((other, place) => (place === at ? names[to] : place === to ? name : other));
        const button = (what, text, disabled, act) => h("button", { class: "quiet icon", type: "button", disabled, "aria-label": `${what}: ${headingFor(name)}`, title: what, dataset: { what, column: name }, onclick: () => kept(act, `[data-what="${what}"][data-column="${CSS.escape(name)}"]`, order) }, text);
        return h(
          "li",
          {},
          h("span", { class: "grow" }, headingFor(name)),
          button("Move up", "↑", at === 0, () => show(swapped(at - 1))),
          button("Move down", "↓", at === names.length - 1, () => show(swapped(at + 1))),
          button("Remove", "✕", names.length === 1, () => show(names.filter((other) => other !== name))),
        );
      }),
    );
  }

  // Calls a function that redraws, then restores the keyboard focus.
  function kept(act, selector, root) {
    act();
    const again = $(selector, root);
    (again && !again.disabled ? again : $$("button:not(:disabled), input", root)[0])?.focus();
  }

  search.addEventListener("input", draw);
  $("#columns-reset").addEventListener("click", () => show([...defaults]));
  $("#choose-columns").addEventListener("click", open);
}
