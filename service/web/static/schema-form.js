// A form out of a JSON schema. It edits the document that will be sent, and shows beside it what holds without a change.
import { h, words } from "./dom.js";

export class SchemaForm {
  // schemas: components by name; options: { pointer: [values] } for strings that are names; onchange(): the document changed
  constructor(schemas, { options = {}, onchange }) {
    this.schemas = schemas;
    this.options = options;
    this.onchange = onchange;
    this.sent = {}; // what the person chose
    this.filled = {}; // the same with every value filled in
    this.fields = new Map(); // pointer -> { element, fault, sync }
  }

  // Follows references, and takes "or null" apart; of an object and the name that may stand for it, the object is shown.
  resolve(schema) {
    let found = schema;
    while (found.$ref) found = { ...this.schemas[found.$ref.split("/").at(-1)], ...without(found, "$ref") };
    const options = (found.anyOf ?? []).filter((option) => option.type !== "null" && option.title !== "Shorthand");
    if (!found.anyOf) return { schema: found, nullable: false };
    const nullable = found.anyOf.some((option) => option.type === "null");
    if (options.length === 1) return { schema: { ...without(found, "anyOf"), ...this.resolve(options[0]).schema }, nullable };
    return { schema: { ...without(found, "anyOf"), oneOf: options }, nullable };
  }

  value(path) {
    const own = at(this.sent, path);
    return own === undefined ? at(this.filled, path) : own;
  }

  has(path) {
    return at(this.sent, path) !== undefined;
  }

  // Lists replace as a whole: who changes one item sends them all.
  set(path, value) {
    for (let length = 1; length < path.length; length += 1) {
      const start = path.slice(0, length);
      const own = at(this.sent, start);
      if (typeof own === "string") put(this.sent, start, { name: own }); // a name that stands for its object
      if (own !== undefined && own !== null) continue;
      const whole = at(this.filled, start);
      put(this.sent, start, Array.isArray(whole) ? structuredClone(whole) : {});
    }
    put(this.sent, path, value);
    this.onchange();
  }

  unset(path) {
    drop(this.sent, path);
    this.onchange();
  }

  // The fields of some properties of the document.
  draw(schema, names, path = []) {
    return names.map((name) => this.field(schema.properties[name], [...path, name])).filter(Boolean);
  }

  field(raw, path) {
    const { schema, nullable } = this.resolve(raw);
    if (schema.const !== undefined) return null;
    if (schema.oneOf) return this.union(schema, path);
    if (schema.type === "object" && schema.properties) return this.group(schema, nullable, path);
    if (schema.type === "array") {
      const item = this.resolve(schema.items).schema;
      if (item.oneOf) return this.list(item, path);
      if (item.enum) return this.several(item, path);
      return this.leaf(schema, nullable, path, (id) => this.textList(item, path, id));
    }
    return this.leaf(schema, nullable, path, (id) => this.input(schema, nullable, path, id));
  }

  // A label, an input, what is wrong with it, and the way back to the preset's value.
  leaf(schema, nullable, path, make) {
    const pointer = pointerOf(path);
    const id = `field${pointer.replaceAll("/", "-")}`;
    const { element, sync } = make(id);
    const fault = h("p", { class: "fault", id: `${id}-fault`, hidden: true });
    const back = h("button", { type: "button", class: "slim quiet back", title: "Back to the preset's value", "aria-label": `${words(path.at(-1))}: back to the preset's value` }, "↺");
    back.addEventListener("click", () => this.unset(path));
    element.setAttribute("aria-describedby", fault.id);
    const inList = path.some((part) => typeof part === "number");
    const label = h("label", { for: id }, words(String(path.at(-1))));
    const hint = schema.description && !schema.enum ? h("p", { class: "hint" }, schema.description.replaceAll("``", "")) : null;
    const box = h("div", { class: element.type === "checkbox" ? "field check" : "field" }, label, h("div", { class: "control" }, element, inList ? null : back), inList ? null : hint, fault);
    this.fields.set(pointer, {
      element,
      fault,
      sync: () => {
        const changed = this.has(path);
        box.classList.toggle("changed", changed && !inList);
        back.hidden = !changed;
        if (element !== document.activeElement || element.tagName === "SELECT" || element.type === "checkbox") sync(this.value(path));
      },
    });
    return box;
  }

  input(schema, nullable, path, id) {
    const known = this.options[pointerOf(path)] ?? schema.enum;
    if (known) {
      const element = h("select", { id }, nullable ? h("option", { value: "" }, "none") : null, known.map((value) => h("option", { value }, words(value))));
      element.addEventListener("change", () => this.set(path, element.value === "" ? null : element.value));
      return { element, sync: (value) => (element.value = value ?? "") };
    }
    if (schema.type === "boolean") {
      const element = h("input", { id, type: "checkbox" });
      element.addEventListener("change", () => this.set(path, element.checked));
      return { element, sync: (value) => (element.checked = Boolean(value)) };
    }
    const isNumber = schema.type === "integer" || schema.type === "number";
    const bounds = isNumber ? { min: schema.minimum ?? schema.exclusiveMinimum, max: undefined, step: schema.type === "integer" ? 1 : "any" } : { maxlength: schema.maxLength };
    const element = h("input", { id, type: isNumber ? "number" : "text", autocomplete: "off", placeholder: nullable ? "none" : "", ...bounds });
    if (isNumber && schema.maximum !== undefined) element.setAttribute("max", schema.maximum);
    element.addEventListener("input", () => {
      if (element.value === "" && element.validity.valid) {
        if (path.some((part) => typeof part === "number") || !nullable) this.unset(path);
        else this.set(path, null);
      } else this.set(path, isNumber ? Number(element.value) : element.value);
    });
    return { element, sync: (value) => (element.value = value ?? "") };
  }

  // A list of words or numbers, separated by commas.
  textList(item, path, id) {
    const isNumber = item.type === "integer" || item.type === "number";
    const element = h("input", { id, type: "text", autocomplete: "off", placeholder: "separated by commas" });
    element.addEventListener("input", () => {
      const parts = element.value.split(",").map((part) => part.trim()).filter(Boolean);
      this.set(path, isNumber ? parts.map((part) => (Number.isNaN(Number(part)) ? part : Number(part))) : parts);
    });
    return { element, sync: (value) => (element.value = (value ?? []).join(", ")) };
  }

  several(item, path) {
    const boxes = item.enum.map((value) => {
      const box = h("input", { type: "checkbox", value });
      box.addEventListener("change", () => this.set(path, boxes.filter((other) => other.checked).map((other) => other.value)));
      return box;
    });
    const fault = h("p", { class: "fault", hidden: true });
    const element = h("fieldset", { class: "field several" }, h("legend", {}, words(path.at(-1))), boxes.map((box) => h("label", { class: "inline small" }, box, words(box.value))), fault);
    this.fields.set(pointerOf(path), { element, fault, sync: () => boxes.forEach((box) => (box.checked = (this.value(path) ?? []).includes(box.value))) });
    return element;
  }

  group(schema, nullable, path) {
    const inner = h("div", { class: "group" }, this.draw(schema, Object.keys(schema.properties), path));
    const legend = h("legend", {}, words(String(path.at(-1))));
    const fault = h("p", { class: "fault", hidden: true });
    const element = h("fieldset", { class: "field nested" }, legend, fault, inner);
    let on = null;
    if (nullable) {
      on = h("input", { type: "checkbox" });
      legend.replaceChildren(h("label", { class: "inline" }, on, words(String(path.at(-1)))));
      on.addEventListener("change", () => this.set(path, on.checked ? this.blank(schema, {}) : null));
    }
    this.fields.set(pointerOf(path), {
      element,
      fault,
      sync: () => {
        const there = !nullable || (this.value(path) ?? null) !== null;
        if (on) on.checked = there;
        inner.hidden = !there;
      },
    });
    return element;
  }

  // One of several kinds of object, told apart by a name.
  union(schema, path) {
    const variants = schema.oneOf.map((option) => this.resolve(option).schema);
    const key = Object.keys(variants[0].properties).find((name) => variants[0].properties[name].const !== undefined);
    const nameOf = (variant) => variant.properties[key].const;
    const id = `field${pointerOf(path).replaceAll("/", "-")}`;
    const isOptional = schema.default === null;
    const select = h("select", { id }, isOptional ? h("option", { value: "" }, "as above") : null, variants.map((variant) => h("option", { value: nameOf(variant) }, words(nameOf(variant)))));
    const inner = h("div", { class: "group" });
    const fault = h("p", { class: "fault", hidden: true });
    let shown;
    select.addEventListener("change", () => {
      const variant = variants.find((item) => nameOf(item) === select.value);
      this.set(path, variant ? { [key]: select.value, ...this.blank(variant, this.value(path) ?? {}) } : null);
    });
    this.fields.set(pointerOf(path), {
      element: select,
      fault,
      sync: () => {
        const now = this.value([...path, key]) ?? "";
        select.value = now;
        if (now === shown) return;
        shown = now;
        for (const pointer of this.fields.keys()) if (pointer.startsWith(`${pointerOf(path)}/`)) this.fields.delete(pointer);
        const variant = variants.find((item) => nameOf(item) === now);
        inner.replaceChildren(...(variant ? this.draw(variant, Object.keys(variant.properties), path) : []));
        for (const [pointer, field] of this.fields) if (pointer.startsWith(`${pointerOf(path)}/`)) field.sync();
      },
    });
    const isItem = typeof path.at(-1) === "number";
    const label = h("label", { for: id, class: isItem ? "visually-hidden" : "" }, isItem ? `Type of layer ${path.at(-1) + 1}` : words(String(path.at(-1))));
    return h("fieldset", { class: `field nested${isItem ? " item" : ""}` }, isItem ? null : h("legend", { class: "visually-hidden" }, words(String(path.at(-1)))), h("div", { class: "control" }, label, select), fault, inner);
  }

  // Values for what has no default, from what stood there before or the schema.
  blank(schema, before) {
    const made = {};
    for (const [name, raw] of Object.entries(schema.properties)) {
      const field = this.resolve(raw).schema;
      if (field.const !== undefined || "default" in raw || "default" in field) continue;
      made[name] = before[name] ?? start(field);
    }
    return made;
  }

  list(item, path) {
    const rows = h("ol", { class: "layers" });
    const fault = h("p", { class: "fault", hidden: true });
    const pointer = pointerOf(path);
    const change = (edit) => {
      const items = structuredClone(this.value(path) ?? []);
      edit(items);
      shape = null;
      this.set(path, items);
    };
    const tool = (text, name, index, edit, disabled = false) => h("button", { type: "button", class: "slim quiet", "aria-label": `${name} layer ${index + 1}`, title: name, disabled, onclick: () => change(edit) }, text);
    let shape = null;
    this.fields.set(pointer, {
      element: rows,
      fault,
      sync: () => {
        const items = this.value(path) ?? [];
        const now = String(items.length);
        if (now === shape) return;
        shape = now;
        for (const known of [...this.fields.keys()]) if (known.startsWith(`${pointer}/`)) this.fields.delete(known);
        rows.replaceChildren(
          ...items.map((_, index) =>
            h(
              "li",
              {},
              this.union(item, [...path, index]),
              h("div", { class: "tools" },
                tool("↑", "Move up", index, (list) => list.splice(index - 1, 0, ...list.splice(index, 1)), index === 0),
                tool("↓", "Move down", index, (list) => list.splice(index + 1, 0, ...list.splice(index, 1)), index === items.length - 1),
                tool("✕", "Remove", index, (list) => list.splice(index, 1), items.length === 1)),
            ),
          ),
        );
        for (const [known, field] of [...this.fields]) if (known.startsWith(`${pointer}/`)) field.sync();
      },
    });
    const add = h("button", { type: "button", class: "slim", onclick: () => change((list) => list.splice(-1, 0, { type: "dense", units: 100, activation: "relu" })) }, "Add a layer before the last");
    return h("fieldset", { class: "field nested" }, h("legend", {}, words(path.at(-1))), rows, fault, add);
  }

  sync() {
    for (const field of [...this.fields.values()]) field.sync();
  }

  // Shows each fault at its field, or at the nearest one around it; gives those that have no place.
  tell(faults) {
    for (const { element, fault } of this.fields.values()) {
      element.removeAttribute("aria-invalid");
      fault.hidden = true;
      fault.textContent = "";
    }
    return faults.filter(({ pointer = "#", detail }) => {
      let place = pointer.slice(1);
      while (place && !this.fields.has(place)) place = place.slice(0, place.lastIndexOf("/"));
      const field = this.fields.get(place);
      if (!field) return true;
      field.element.setAttribute("aria-invalid", "true");
      field.fault.hidden = false;
      field.fault.textContent += `${field.fault.textContent ? "; " : ""}${detail}`;
      field.element.closest("details")?.setAttribute("open", "");
      return false;
    });
  }
}

const pointerOf = (path) => path.map((part) => `/${part}`).join("");
const without = (object, name) => Object.fromEntries(Object.entries(object).filter(([key]) => key !== name));
const at = (document, path) => path.reduce((part, name) => part?.[name], document);

function put(document, path, value) {
  const parent = at(document, path.slice(0, -1));
  parent[path.at(-1)] = value;
}

// Takes a value out, and the objects that are empty without it.
function drop(document, path) {
  const parent = at(document, path.slice(0, -1));
  if (parent === undefined || parent === null) return;
  delete parent[path.at(-1)];
  if (path.length > 1 && Object.keys(parent).length === 0 && !Array.isArray(parent)) drop(document, path.slice(0, -1));
}

function start(schema) {
  if (schema.enum) return schema.enum[0];
  if (schema.type === "array") return Array.from({ length: schema.minItems ?? 0 }, () => start(schema.items));
  if (schema.type === "integer") return Math.max(schema.minimum ?? 0, 5);
  if (schema.type === "number") return Math.min(schema.maximum ?? 0.1, Math.max(schema.minimum ?? 0, 0.1));
  return "";
}
