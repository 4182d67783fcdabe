// A form generated from a JSON schema. It edits the document that will be sent; other fields show the preset's values.
import { sentence } from "../../common/dom.js";
import { applies, drop, isObject, merge, pointerOf, put, Schemas, valueAt } from "./document.js";
import { leaf, several } from "./fields.js";
import { layerList } from "./layers.js";
import { group, union } from "./objects.js";

export class SchemaForm {
  // parts: schemas by name; controls: { pointer: (form, path, id) => { element, sync } } for fields with a custom
  // control; pinned: pointers of fields that are drawn outside of their object; tries: the fields with several
  // values, see ../sweep-fields.js.
  constructor(parts, { controls = {}, pinned = [], tries = null, onchange }) {
    this.schemas = new Schemas(parts);
    this.controls = controls;
    this.pinned = new Set(pinned);
    this.tries = tries;
    this.onchange = onchange;
    this.root = null; // the schema of the document's kind
    this.base = {}; // the preset's values
    this.sent = {}; // what the user changed
    this.filled = {}; // the two together
    this.networks = new Map(); // pointer of layers -> the service's description of them
    this.fields = new Map(); // pointer -> { element, fault, sync }
  }

  load(root, base, sent) {
    Object.assign(this, { root, base, sent });
    this.fill();
  }

  fill() {
    this.filled = this.schemas.complete(this.root, merge(this.base, this.schemas.expand(this.root, this.sent)));
  }

  value(path) {
    return valueAt(this.filled, path);
  }

  has(path) {
    return valueAt(this.sent, path) !== undefined;
  }

  applies(schema, path) {
    return applies(schema, this.value(path.slice(0, -1)));
  }

  // Lists are replaced entirely: changing one item sends all items.
  set(path, value) {
    this.sent = this.schemas.expand(this.root, this.sent);
    put(this.sent, path, value, (start) => {
      const current = this.value(start);
      return Array.isArray(current) ? this.schemas.slim(this.schemaAt(start), current) : {};
    });
    this.edited();
  }

  unset(path) {
    drop(this.sent, path);
    this.edited();
  }

  edited() {
    this.fill();
    this.schemas.prune(this.root, this.sent, { base: this.base, filled: this.filled });
    this.fill();
    this.onchange();
  }

  schemaAt(path) {
    return path.reduce((raw, name, length) => {
      const { schema } = this.schemas.resolve(raw);
      if (typeof name === "number") return schema.items;
      return this.schemas.shape(raw, this.value(path.slice(0, length)))?.properties[name] ?? {};
    }, this.root);
  }

  // The fields of the named properties of an object.
  draw(shape, names, path = []) {
    return names
      .filter((name) => !this.pinned.has(pointerOf([...path, name])))
      .map((name) => this.field(shape.properties[name], [...path, name]))
      .filter(Boolean);
  }

  field(raw, path) {
    const { schema, nullable } = this.schemas.resolve(raw);
    if (schema.const !== undefined) return null;
    if (schema.oneOf) return union(this, schema, nullable, path);
    if (schema.type === "object" && schema.properties) return group(this, schema, nullable, path);
    if (schema.type === "array") {
      const item = this.schemas.resolve(schema.items).schema;
      if (item.oneOf) return layerList(this, schema, item, path);
      if (item.enum) return several(this, schema, item, path);
    }
    return leaf(this, schema, nullable, path);
  }

  forget(path) {
    const isBelow = (pointer) => pointer.startsWith(`${pointerOf(path)}/`) && !this.pinned.has(pointer.split(" ")[0]);
    for (const pointer of [...this.fields.keys()]) if (isBelow(pointer)) this.fields.delete(pointer);
  }

  syncBelow(path) {
    for (const [pointer, field] of [...this.fields]) if (pointer.startsWith(`${pointerOf(path)}/`)) field.sync();
  }

  sync() {
    for (const field of [...this.fields.values()]) field.sync();
  }

  // Shows each fault at its field or at the nearest enclosing one; returns those without a field.
  // offer(fault): buttons for the service's suggestions.
  showFaults(faults, offer) {
    for (const field of this.fields.values()) {
      field.element.removeAttribute("aria-invalid");
      field.fault.hidden = true;
      field.fault.replaceChildren();
    }
    const unplaced = faults.filter((fault) => {
      let pointer = (fault.pointer ?? "#").slice(1);
      while (pointer && !this.fields.has(pointer)) pointer = pointer.slice(0, pointer.lastIndexOf("/"));
      const field = this.fields.get(pointer);
      if (!field) return true;
      field.element.setAttribute("aria-invalid", "true");
      field.fault.hidden = false;
      field.fault.append(field.fault.childNodes.length ? " " : "", `${sentence(fault.detail)} `, ...offer(fault));
      field.element.closest("details")?.setAttribute("open", "");
      return false;
    });
    this.sync(); // a field without effect is visible while it has a fault
    return unplaced;
  }

  // Applies a fault's suggestion to the document.
  accept({ pointer, code, suggestion }) {
    const path = pointer.slice(2).split("/").map((
      part,
    ) => (/^\d+$/.test(part) ? Number(part) : part.replaceAll("~1", "/").replaceAll("~0", "~")));
    const previous = valueAt(this.sent, path) ?? this.value(path);
    if (code === "unknown_field") {
      const nested = [...path.slice(0, -1), ...suggestion.split(".")];
      const target = Object.keys(this.schemaAt(nested)).length ? nested : suggestion.split(".");
      drop(this.sent, path);
      this.set(target, previous);
    } else if (code === "wrong_shape" && isObject(previous)) {
      this.insertBefore(path, suggestion);
    } else {this.set(
        path,
        typeof previous === "number" || isNumber(this.schemas.resolve(this.schemaAt(path)).schema)
          ? Number(suggestion)
          : suggestion,
      );}
  }

  // Inserts a layer before the one at path, as the service suggests if the shapes of two layers do not match.
  insertBefore(path, type) {
    const [list, index] = [path.slice(0, -1), path.at(-1)];
    const items = this.schemas.slim(this.schemaAt(list), this.value(list));
    const { byName } = this.schemas.variants(
      this.schemas.resolve(this.schemas.resolve(this.schemaAt(list)).schema.items).schema,
    );
    const layer = this.schemas.blank(byName.get(type));
    const network = this.networks.get(pointerOf(list));
    const size = index ? network?.layers[index - 1]?.output_shape : network?.input_shape;
    if (type === "reshape" && size) layer.shape = square(size.reduce((product, side) => product * side, 1));
    items.splice(index, 0, layer);
    this.set(list, items);
  }
}

const isNumber = (schema) => schema.type === "integer" || schema.type === "number";

// Height, width and channels for a number of values: the largest square image.
function square(numbers) {
  let side = Math.floor(Math.sqrt(numbers));
  while (numbers % (side * side)) side -= 1;
  return [side, side, numbers / (side * side)];
}
