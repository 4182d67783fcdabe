// Specs as plain data: reading and writing by path, filling gaps, and leaving out what has no effect.

export const pointerOf = (path) => path.map((part) => `/${part}`).join("");
export const valueAt = (document, path) =>
  path.reduce((node, name) => (isContainer(node) ? node[name] : undefined), document);
export const isObject = (value) => isContainer(value) && !Array.isArray(value);
const SHORTHAND = "Shorthand"; // the title of a string that may replace an object
const isContainer = (value) => typeof value === "object" && value !== null;

// Sets a value. make(path) creates missing containers on the way.
export function put(document, path, value, make) {
  let node = document;
  for (let length = 1; length < path.length; length += 1) {
    const name = path[length - 1];
    if (!isContainer(node[name])) node[name] = make(path.slice(0, length));
    node = node[name];
  }
  node[path.at(-1)] = value;
}

// Removes a value, and objects that become empty.
export function drop(document, path) {
  const parent = valueAt(document, path.slice(0, -1));
  if (!isContainer(parent)) return;
  delete parent[path.at(-1)];
  if (path.length > 1 && isObject(parent) && Object.keys(parent).length === 0) drop(document, path.slice(0, -1));
}

// Merges a spec with its preset as the service does: an object that selects another variant replaces the preset's
// object.
export function merge(base, override) {
  if (!isObject(base) || !isObject(override)) return structuredClone(override);
  const merged = { ...base };
  for (const [name, value] of Object.entries(override)) {
    const baseValue = base[name];
    const isOtherVariant = name !== "dataset" && isObject(value) && "name" in value && value.name !== baseValue?.name;
    merged[name] = isOtherVariant ? structuredClone(value) : merge(baseValue, value);
  }
  return merged;
}

// Whether a field has an effect, given its siblings: "x-applies-when" has a JSON schema for each relevant sibling.
export function applies(schema, neighbours) {
  return Object.entries(schema["x-applies-when"] ?? {}).every(([name, condition]) => {
    const value = neighbours?.[name];
    if (condition.enum && !condition.enum.includes(value)) return false;
    return condition.exclusiveMinimum === undefined || value > condition.exclusiveMinimum;
  });
}

// JSON schemas by name, and how they apply to a document.
export class Schemas {
  constructor(parts) {
    this.parts = parts;
  }

  // Resolves references and unwraps "or null". Annotations of the field override those of its type.
  resolve(raw) {
    let schema = raw;
    while (schema.$ref) {
      schema = { ...without(this.parts[schema.$ref.split("/").at(-1)], "title"), ...without(schema, "$ref") };
    }
    if (!schema.anyOf) return { schema, nullable: false };
    const options = schema.anyOf.filter((option) => option.type !== "null" && option.title !== SHORTHAND);
    const nullable = schema.anyOf.some((option) => option.type === "null");
    if (options.length > 1) return { schema: { ...without(schema, "anyOf"), oneOf: options }, nullable };
    const inner = this.resolve(options[0]);
    return { schema: { ...inner.schema, ...without(schema, "anyOf") }, nullable: nullable || inner.nullable };
  }

  // The variants of a discriminated union: { key, byName }; null for other schemas.
  variants(schema) {
    if (!schema.oneOf) return null;
    const all = schema.oneOf.map((option) => this.resolve(option).schema);
    const key = Object.keys(all[0].properties).find((name) => all[0].properties[name].const !== undefined);
    return { key, byName: new Map(all.map((variant) => [variant.properties[key].const, variant])) };
  }

  // The fields of an object, or of its variant in a union; null if it does not match the schema.
  shape(raw, value) {
    const { schema } = this.resolve(raw);
    if (!isObject(value)) return null;
    const variants = this.variants(schema);
    if (!variants) return schema.properties ? schema : null;
    return variants.byName.get(value[variants.key] ?? variants.byName.keys().next().value) ?? null;
  }

  // Expands shorthands: "adam" becomes { name: "adam" }.
  expand(raw, document) {
    if (typeof document === "string" && raw.anyOf?.some((option) => option.title === SHORTHAND)) {
      return { name: document };
    }
    const shape = this.shape(raw, document);
    if (!shape) return document;
    return Object.fromEntries(
      Object.entries(document).map((
        [name, value],
      ) => [name, name in shape.properties ? this.expand(shape.properties[name], value) : value]),
    );
  }

  // Adds the defaults of omitted fields.
  complete(raw, value) {
    const items = this.resolve(raw).schema.items;
    if (Array.isArray(value)) return items ? value.map((item) => this.complete(items, item)) : value;
    const shape = this.shape(raw, value);
    if (!shape) return value;
    const completed = { ...value };
    for (const [name, field] of Object.entries(shape.properties)) {
      if (name in completed) completed[name] = this.complete(field, completed[name]);
      else if (field.const !== undefined) completed[name] = field.const;
      else if (field.default !== undefined) completed[name] = structuredClone(field.default);
    }
    return completed;
  }

  // Removes fields without effect; if the preset has a value for one, the field is set to its default instead.
  prune(raw, document, { base, filled }) {
    const items = this.resolve(raw).schema.items;
    if (Array.isArray(document) && items) {
      document.forEach((item, index) => this.prune(items, item, { base: undefined, filled: filled?.[index] }));
      return;
    }
    const shape = this.shape(raw, filled);
    if (!shape || !isObject(document)) return;
    for (const [name, field] of Object.entries(shape.properties)) {
      if (!applies(field, filled)) {
        if (base?.[name] !== undefined && base[name] !== field.default) document[name] = field.default;
        else delete document[name];
      } else if (name in document) {
        const isOtherVariant = isObject(filled[name]) && filled[name].name !== base?.[name]?.name;
        this.prune(field, document[name], { base: isOtherVariant ? undefined : base?.[name], filled: filled[name] });
      }
    }
  }

  // A list's items, without the fields that have their default value.
  slim(raw, items) {
    const item = this.resolve(raw).schema.items;
    return items.map((value) => {
      const shape = item && this.shape(item, value);
      if (!shape) return structuredClone(value);
      const isNeeded = ([name, fieldValue]) =>
        shape.properties[name]?.const !== undefined || shape.properties[name]?.default !== fieldValue;
      return structuredClone(Object.fromEntries(Object.entries(value).filter(isNeeded)));
    });
  }

  // Values for the fields without a default: the previous value, else the schema's example.
  blank(shape, previous = {}) {
    const result = {};
    for (const [name, raw] of Object.entries(shape.properties)) {
      const { schema } = this.resolve(raw);
      if (schema.const !== undefined) result[name] = schema.const;
      else if (!("default" in raw)) {
        result[name] = structuredClone(previous?.[name] ?? raw.examples?.[0] ?? initialValue(schema));
      }
    }
    return result;
  }
}

function initialValue(schema) {
  if (schema.enum) return schema.enum[0];
  if (schema.type === "array") return Array.from({ length: schema.minItems ?? 0 }, () => initialValue(schema.items));
  if (schema.type === "integer") return Math.max(schema.minimum ?? 0, 5);
  if (schema.type === "number") return Math.min(schema.maximum ?? 0.1, Math.max(schema.minimum ?? 0, 0.1));
  return "";
}

const without = (object, name) => Object.fromEntries(Object.entries(object).filter(([key]) => key !== name));
