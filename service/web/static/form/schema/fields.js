// Fields with one value: a label, an input, help, a fault, and a button that resets it to the preset's value.
import { capital, h, words } from "../../common/dom.js";
import { pointerOf } from "./document.js";

export const idOf = (path) => `field${pointerOf(path).replaceAll("/", "-")}`;

// The schema's title if it has its own; a title that pydantic derived from the name is written in lower case.
export function labelOf(schema, name) {
  const plain = words(String(name));
  return schema.title && schema.title.toLowerCase() !== plain ? schema.title : capital(plain);
}

// The first sentence is always visible; a "?" opens the rest. In the rows of a list, the row's button opens the entire
// text.
export function helpFor(schema, name, id, { inRow = false } = {}) {
  const text = (schema.description ?? "").replaceAll("``", "").replace(/\s+/g, " ").trim();
  if (!text) return { hint: null, toggle: null };
  const [first, rest] = inRow ? [text, ""] : firstSentence(text);
  const more = rest ? h("span", { hidden: true }, ` ${rest}`) : null;
  const hint = h("p", { class: "hint", id: `${id}-hint` }, first, more);
  if (!rest) return { hint, toggle: null };
  const toggle = h("button", {
    type: "button",
    class: "help",
    "aria-expanded": "false",
    "aria-controls": hint.id,
    "aria-label": `More about ${name}`,
    title: "More",
  }, "?");
  toggle.addEventListener("click", () => {
    more.hidden = !more.hidden;
    toggle.setAttribute("aria-expanded", String(!more.hidden));
  });
  return { hint, toggle };
}

function firstSentence(text) {
  const end = text.search(/\.\s(?=[A-Z0-9])/);
  return end < 0 ? [text, ""] : [text.slice(0, end + 1), text.slice(end + 2)];
}

export function leaf(form, schema, nullable, path, { label: customLabel } = {}) {
  const pointer = pointerOf(path);
  const id = idOf(path);
  const inRow = path.some((part) => typeof part === "number");
  const name = customLabel ?? labelOf(schema, path.at(-1));
  const { element, sync } = (form.controls[pointer] ?? ((...values) => input(...values, schema, nullable)))(
    form,
    path,
    id,
  );
  const { hint, toggle } = helpFor(schema, name, id, { inRow });
  const fault = h("p", { class: "fault", id: `${id}-fault`, hidden: true });
  const resetButton = h("button", {
    type: "button",
    class: "back",
    title: "Reset to the preset's value",
    "aria-label": `Reset ${name} to the preset's value`,
    hidden: true,
    onclick: () => form.unset(path),
  }, "↺");
  element.setAttribute("aria-describedby", [hint?.id, fault.id].filter(Boolean).join(" "));
  const isCheck = element.type === "checkbox";
  const tries = form.controls[pointer] ? null : form.tries?.offer(schema, path, name, id, () => form.value(path));
  const label = h("label", { for: id, title: path.join(".") }, name);
  const box = h(
    "div",
    { class: `field${isCheck ? " check" : ""}`, dataset: { name: path.join(".") } },
    h("div", { class: "name" }, isCheck ? element : null, label, toggle, tries?.button, inRow ? null : resetButton),
    isCheck ? null : element,
    tries?.row,
    hint,
    fault,
  );
  form.fields.set(pointer, {
    element,
    fault,
    sync: () => {
      const changed = form.has(path) && !inRow;
      box.classList.toggle("changed", changed);
      resetButton.hidden = !changed;
      box.hidden = !form.applies(schema, path) && fault.hidden;
      const isTyped = element === document.activeElement && !isCheck && element.tagName !== "SELECT";
      if (!isTyped) sync(form.value(path));
      tries?.sync(element);
    },
  });
  return box;
}

function input(form, path, id, schema, nullable) {
  if (schema.enum) return select(form, path, id, schema.enum, nullable);
  if (schema.type === "boolean") return checkbox(form, path, id);
  if (schema.type === "array") return textList(form, path, id, form.schemas.resolve(schema.items).schema);
  return text(form, path, id, schema, nullable);
}

function select(form, path, id, values, nullable) {
  const element = h(
    "select",
    { id },
    nullable ? h("option", { value: "" }, "none") : null,
    values.map((value) => h("option", { value }, words(value))),
  );
  element.addEventListener("change", () => form.set(path, element.value === "" ? null : element.value));
  return { element, sync: (value) => (element.value = value ?? "") };
}

function checkbox(form, path, id) {
  const element = h("input", { id, type: "checkbox" });
  element.addEventListener("change", () => form.set(path, element.checked));
  return { element, sync: (value) => (element.checked = Boolean(value)) };
}

function text(form, path, id, schema, nullable) {
  const isNumber = schema.type === "integer" || schema.type === "number";
  const bounds = isNumber
    ? { min: schema.minimum ?? schema.exclusiveMinimum, step: schema.type === "integer" ? 1 : "any" }
    : { maxlength: schema.maxLength };
  const element = h("input", {
    id,
    type: isNumber ? "number" : "text",
    autocomplete: "off",
    placeholder: nullable ? "none" : "",
    ...bounds,
  });
  if (isNumber && schema.maximum !== undefined) element.setAttribute("max", schema.maximum);
  const inRow = path.some((part) => typeof part === "number");
  element.addEventListener("input", () => {
    if (element.value === "" && element.validity.valid) {
      if (inRow || !nullable) form.unset(path);
      else form.set(path, null);
    } else {
      // "" stays "": a lone "-" is not 0.
      form.set(path, isNumber && element.value !== "" ? Number(element.value) : element.value);
    }
  });
  return { element, sync: (value) => (element.value = value ?? "") };
}

// A list of words or numbers, separated by commas.
function textList(form, path, id, item) {
  const isNumber = item.type === "integer" || item.type === "number";
  const element = h("input", { id, type: "text", autocomplete: "off", placeholder: "separated by commas" });
  element.addEventListener("input", () => {
    const parts = element.value.split(",").map((part) => part.trim()).filter(Boolean);
    form.set(path, isNumber ? parts.map((part) => (Number.isNaN(Number(part)) ? part : Number(part))) : parts);
  });
  return { element, sync: (value) => (element.value = Array.isArray(value) ? value.join(", ") : (value ?? "")) };
}

// A choice of several words.
export function several(form, schema, item, path) {
  const id = idOf(path);
  const selected = () => (Array.isArray(form.value(path)) ? form.value(path) : []);
  const boxes = (schema["x-choices"] ?? item.enum).map((value) =>
    h("input", {
      type: "checkbox",
      value,
      onchange: () => form.set(path, boxes.filter((box) => box.checked).map((box) => box.value)),
    })
  );
  const { hint, toggle } = helpFor(schema, labelOf(schema, path.at(-1)), id);
  const fault = h("p", { class: "fault", hidden: true });
  const element = h(
    "fieldset",
    { class: "field several", id, "aria-describedby": hint?.id, dataset: { name: path.join(".") } },
    h("legend", {}, labelOf(schema, path.at(-1)), " ", toggle),
    hint,
    boxes.map((box) => h("label", { class: "inline small" }, box, words(box.value))),
    fault,
  );
  form.fields.set(pointerOf(path), {
    element,
    fault,
    sync: () => boxes.forEach((box) => (box.checked = selected().includes(box.value))),
  });
  return element;
}
