// The layers of a network as a sortable list, each with its output shape and number of parameters.
import { $, h, words } from "../../common/dom.js";
import { pointerOf } from "./document.js";
import { reorderable } from "./drag.js";
import { helpFor, idOf, labelOf } from "./fields.js";
import { variantFields } from "./objects.js";

const shapeText = (shape) => shape.map((side) => side.toLocaleString("en")).join(" × ");

export function layerList(form, schema, item, path) {
  const id = idOf(path);
  const name = labelOf(schema, path.at(-1));
  const { byName } = form.schemas.variants(item);
  const rows = h("ol", { class: "layers", id });
  const input = h("p", { class: "hint input" });
  const announcement = h("p", { class: "visually-hidden", role: "status" });
  const { hint, toggle } = helpFor(schema, name, id);
  const fault = h("p", { class: "fault", hidden: true });
  const items = () => (Array.isArray(form.value(path)) ? form.value(path) : []);
  let drawnRows = []; // one { sync } for each row

  // Redraws all rows, and focuses a tool or the type of one of them.
  const change = (edit, { focus, say }) => {
    const changed = form.schemas.slim(schema, items());
    edit(changed);
    drawnRows = [];
    form.set(path, changed);
    announcement.textContent = say;
    $(focus, rows)?.focus();
  };
  const move = (from, to, tool) => {
    const type = words(items()[from].type ?? "dense");
    change((list) => list.splice(to, 0, ...list.splice(from, 1)), {
      focus: `li:nth-child(${to + 1}) [data-tool="${tool}"]`,
      say: `${type} is now layer ${to + 1} of ${items().length}`,
    });
  };
  const insert = async (index) => {
    const type = await chooseType(
      byName,
      index < items().length ? `Insert a layer before layer ${index + 1}` : "Add a layer at the end",
    );
    if (type === null) return;
    change((list) => list.splice(index, 0, form.schemas.blank(byName.get(type))), {
      focus: `li:nth-child(${index + 1}) select`,
      say: `${words(type)} is now layer ${index + 1}`,
    });
  };
  const actions = { items, move, insert, change };

  form.fields.set(pointerOf(path), {
    element: rows,
    fault,
    sync: () => {
      const network = form.networks.get(pointerOf(path));
      input.textContent = network ? `Input: ${shapeText(network.input_shape)}` : "Input: –";
      input.hidden = isInside(path);
      if (drawnRows.length !== items().length) {
        form.forget(path);
        drawnRows = items().map((_, index) => layerRow(form, item, [...path, index], rows, actions));
        rows.replaceChildren(...drawnRows.map((row) => row.element));
      }
      for (const row of drawnRows) row.sync(network);
    },
  });
  const add = h(
    "button",
    { type: "button", class: "slim", onclick: () => insert(items().length) },
    "Add a layer at the end",
  );
  return h(
    "fieldset",
    { class: "field nested network", dataset: { name: path.join("."), search: [...byName.keys()].join(" ") } },
    h("legend", {}, name, " ", toggle),
    hint,
    input,
    rows,
    fault,
    add,
    announcement,
  );
}

function layerRow(form, item, path, rows, { items, move, insert, change }) {
  const index = path.at(-1);
  const count = items().length;
  const number = `layer ${index + 1}`;
  const id = idOf(path);
  const { byName } = form.schemas.variants(item);
  const type = h(
    "select",
    { id, "aria-label": `Type of ${number}` },
    [...byName.keys()].map((value) => h("option", { value }, words(value))),
  );
  type.addEventListener("change", () => form.set(path, form.schemas.blank(byName.get(type.value), form.value(path))));
  const handle = h("button", {
    type: "button",
    class: "handle",
    dataset: { tool: "handle" },
    "aria-label": `Reorder ${number}: drag it, or press the up and down arrow keys`,
    title: "Drag to reorder",
  }, String(index + 1));
  handle.addEventListener("keydown", (event) => {
    const to = index + { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!(to >= 0 && to < count)) return;
    event.preventDefault();
    move(index, to, "handle");
  });
  const tool = (key, text, title, label, onclick, disabled = false) =>
    h("button", {
      type: "button",
      class: `slim quiet ${key}`,
      dataset: { tool: key },
      "aria-label": label,
      title,
      disabled,
      onclick,
    }, text);
  const about = h("p", { class: "hint about", id: `${id}-about`, hidden: true });
  const help = h("button", {
    type: "button",
    class: "help",
    "aria-expanded": "false",
    "aria-controls": about.id,
    "aria-label": `Help for ${number}`,
    title: "Help",
  }, "?");
  const shape = h("span", { class: "shape" });
  const parameters = h("span", { class: "muted" });
  const inner = h("div", { class: "group" });
  const fault = h("p", { class: "fault", id: `${id}-fault`, hidden: true });
  type.setAttribute("aria-describedby", `${about.id} ${fault.id}`);
  const element = h(
    "li",
    { class: "layer" },
    handle,
    type,
    inner,
    h("p", { class: "output" }, shape, parameters),
    h(
      "div",
      { class: "tools", role: "group", "aria-label": `Change ${number}` },
      help,
      tool("up", "↑", "Move up", `Move ${number} up`, () => move(index, index - 1, "up"), index === 0),
      tool("down", "↓", "Move down", `Move ${number} down`, () => move(index, index + 1, "down"), index === count - 1),
      tool("insert", "+", "Insert a layer before this one", `Insert a layer before ${number}`, () => insert(index)),
      tool(
        "copy",
        "",
        "Duplicate",
        `Duplicate ${number}`,
        () =>
          change((list) => list.splice(index, 0, structuredClone(list[index])), {
            focus: `li:nth-child(${index + 2}) select`,
            say: `${number} duplicated`,
          }),
      ),
      tool(
        "remove",
        "✕",
        "Remove",
        `Remove ${number}`,
        () =>
          change((list) => list.splice(index, 1), {
            focus: `li:nth-child(${Math.min(index + 1, count - 1)}) select`,
            say: `${number} removed`,
          }),
        count === 1,
      ),
    ),
    about,
    fault,
  );
  help.addEventListener("click", () => {
    const isOpen = element.classList.toggle("helped");
    about.hidden = !isOpen;
    help.setAttribute("aria-expanded", String(isOpen));
  });
  reorderable(handle, element, rows, (from, to) => move(from, to, "handle"));
  const drawFields = variantFields(form, byName, path, { about, inner });
  form.fields.set(pointerOf(path), { element: type, fault, sync: () => {} });
  const sync = (network) => {
    const currentType = form.value(path)?.type ?? "dense";
    type.value = currentType;
    const reported = network?.layers[index];
    // A different type: the response has not arrived yet.
    const layer = reported?.type === currentType ? reported : null;
    shape.textContent = layer ? `→ ${shapeText(layer.output_shape)}` : isInside(path.slice(0, -1)) ? "" : "→ ?";
    parameters.textContent = layer
      ? ` ${layer.parameters.toLocaleString("en")} ${layer.parameters === 1 ? "parameter" : "parameters"}`
      : "";
    drawFields(currentType);
    form.syncBelow(path);
  };
  return { element, sync };
}

// Whether these layers are nested in a layer: the service does not return their shapes.
const isInside = (path) => path.some((part) => typeof part === "number");

// Asks for a layer type, with a description of each; null if cancelled.
function chooseType(byName, title) {
  return new Promise((resolve) => {
    const choices = [...byName].map(([name, variant]) =>
      h(
        "li",
        {},
        h("button", { type: "button", onclick: () => dialog.close(name) }, words(name)),
        h("span", { class: "small" }, variant.description),
      )
    );
    const dialog = h(
      "dialog",
      { class: "types", "aria-labelledby": "types-title" },
      h("h2", { id: "types-title" }, title),
      h("ul", {}, choices),
      h("div", { class: "row" }, h("button", { type: "button", onclick: () => dialog.close("") }, "Cancel")),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue || null);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
