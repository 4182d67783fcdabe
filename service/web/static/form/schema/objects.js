// Fields that are objects: a group of fields, and a choice between variants.
import { h, words } from "../../common/dom.js";
import { pointerOf } from "./document.js";
import { helpFor, idOf, labelOf } from "./fields.js";

export function group(form, schema, nullable, path) {
  const name = labelOf(schema, path.at(-1));
  const id = idOf(path);
  const inner = h("div", { class: "group" }, form.draw(schema, Object.keys(schema.properties), path));
  const { hint, toggle } = helpFor(schema, name, id);
  const legend = h("legend", {}, name, " ", toggle);
  const fault = h("p", { class: "fault", hidden: true });
  const element = h(
    "fieldset",
    { class: "field nested", dataset: { name: path.join(".") }, "aria-describedby": hint?.id },
    legend,
    hint,
    fault,
    inner,
  );
  let on = null;
  if (nullable) {
    on = h("input", { type: "checkbox", id, "aria-describedby": hint?.id });
    legend.replaceChildren(h("label", { class: "inline" }, on, name));
    on.addEventListener("change", () => form.set(path, on.checked ? form.schemas.blank(schema) : null));
  }
  form.fields.set(pointerOf(path), {
    element,
    fault,
    sync: () => {
      const isPresent = !nullable || (form.value(path) ?? null) !== null;
      if (on) on.checked = isPresent;
      inner.hidden = !isPresent;
    },
  });
  return element;
}

// Draws the fields and the description of one variant. Returns a function to call with the current variant:
// it redraws if the variant has changed, and returns whether it did.
export function variantFields(form, byName, path, { about, inner }) {
  let drawnName;
  return (name) => {
    if (name === drawnName) return false;
    drawnName = name;
    form.forget(path);
    const variant = byName.get(name);
    about.textContent = variant?.description ?? "";
    inner.replaceChildren(...(variant ? form.draw(variant, Object.keys(variant.properties), path) : []));
    return true;
  };
}

// One of several variants, selected by a name.
export function union(form, schema, nullable, path) {
  const { key, byName } = form.schemas.variants(schema);
  const name = labelOf(schema, path.at(-1));
  const id = idOf(path);
  const select = h(
    "select",
    { id },
    nullable ? h("option", { value: "" }, "Same as Training") : null,
    [...byName.keys()].map((value) => h("option", { value }, words(value))),
  );
  const { hint } = helpFor(schema, name, id);
  const about = h("p", { class: "hint about", id: `${id}-about` });
  const inner = h("div", { class: "group" });
  const fault = h("p", { class: "fault", id: `${id}-fault`, hidden: true });
  select.setAttribute("aria-describedby", [hint?.id, about.id, fault.id].filter(Boolean).join(" "));
  select.addEventListener("change", () => {
    const variant = byName.get(select.value);
    form.set(path, variant ? form.schemas.blank(variant, form.value(path)) : null);
  });
  const drawFields = variantFields(form, byName, path, { about, inner });
  form.fields.set(pointerOf(path), {
    element: select,
    fault,
    sync: () => {
      const current = form.value([...path, key]) ?? "";
      select.value = current;
      if (drawFields(current)) form.syncBelow(path);
    },
  });
  return h(
    "fieldset",
    { class: "field nested", dataset: { name: path.join(".") } },
    h("legend", { class: "visually-hidden" }, name),
    h("div", { class: "choice" }, h("label", { for: id }, name), select),
    hint,
    about,
    fault,
    inner,
  );
}

// A field of an object with variants, drawn outside of the object; redrawn when another variant is selected.
export function pinned(form, path, draw) {
  const holder = h("div", { class: "pinned" });
  let drawnName;
  const sync = () => {
    const name = path.at(-1) === "name" ? "" : form.value([...path.slice(0, -1), "name"]);
    if (name !== drawnName) {
      drawnName = name;
      form.fields.delete(pointerOf(path));
      const raw = form.schemaAt(path);
      holder.replaceChildren(...(Object.keys(raw).length ? [draw(raw)] : []));
    }
    form.fields.get(pointerOf(path))?.sync();
  };
  form.fields.set(`${pointerOf(path)} apart`, { element: holder, fault: h("p", { hidden: true }), sync });
  return holder;
}
