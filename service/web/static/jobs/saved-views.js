// Named views, stored in this browser. A view is the query of the page's URL.
import { $, h, memory } from "../common/dom.js";

const STORAGE_KEY = "views";
const savedViews = () =>
  memory.get(STORAGE_KEY, []).filter((view) => typeof view?.name === "string" && typeof view?.query === "string");

// current(): the query of the current view.
export function offerViews(current) {
  const dialog = $("#views");
  const form = $("#views-save");
  const save = (views) => {
    memory.set(STORAGE_KEY, views);
    draw();
  };

  function draw() {
    const currentQuery = current();
    const views = savedViews();
    $("#views-list").replaceChildren(
      ...(views.length
        ? views.map((view) => item(view, currentQuery))
        : [h("li", { class: "muted" }, "No saved views yet.")]),
    );
  }

  function item(view, currentQuery) {
    const replaceWith = (replacement) =>
      save(savedViews().flatMap((other) => (other.name === view.name ? replacement : [other])));
    const entry = h("li");
    const show = () =>
      entry.replaceChildren(
        h("a", {
          class: "grow",
          href: view.query ? `/?${view.query}` : "/",
          "aria-current": view.query === currentQuery ? "page" : null,
        }, view.name),
        h("button", { class: "slim", type: "button", "aria-label": `Rename ${view.name}`, onclick: rename }, "Rename"),
        h("button", {
          class: "slim danger",
          type: "button",
          "aria-label": `Delete ${view.name}`,
          onclick: () => replaceWith([]),
        }, "Delete"),
      );
    function rename() {
      const field = h("input", {
        class: "grow",
        type: "text",
        value: view.name,
        maxlength: 60,
        required: true,
        "aria-label": `New name of ${view.name}`,
      });
      const submitName = (event) => {
        event.preventDefault();
        const name = field.value.trim();
        if (!name || savedViews().some((other) => other.name === name && name !== view.name)) {
          return field.setAttribute("aria-invalid", "true");
        }
        replaceWith([{ ...view, name }]);
      };
      entry.replaceChildren(
        h(
          "form",
          { class: "row grow", onsubmit: submitName },
          field,
          h("button", { class: "slim", type: "submit" }, "Rename"),
          h("button", { class: "slim quiet", type: "button", onclick: show }, "Cancel"),
        ),
      );
      field.select();
    }
    show();
    return entry;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const name = form.elements.name.value.trim();
    if (!name) return;
    save([...savedViews().filter((view) => view.name !== name), { name, query: current() }]);
    form.reset();
  });
  $("#saved-views").addEventListener("click", () => {
    draw();
    dialog.showModal();
  });
}
