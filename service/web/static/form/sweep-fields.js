// Fields with several values to try. They turn the job into a sweep: its spec is the base, and each such field a
// setting of the space.
import { h, settingName, words } from "../common/dom.js";
import { isObject } from "./schema/document.js";

// The same in all trials.
const FIXED = /^(kind|preset|name|tags|priority|dataset(?!\.scale)|checkpoint|samples|health|reuse)/;
export const SEED = "seed"; // several seeds are a list of the sweep, not a setting
const MAX_EXPANDED = 100; // seeds of a range such as 0-4; a longer one is refused as it is written
export const DRAWN_TRIALS = 16; // the default for a space that is too large to try all combinations
const KINDS = {
  choice: ["values", "0.01, 0.03, 0.1"],
  span: ["range", "from, to (, step)"],
  log: ["log range", "from, to"],
};

export const isSweep = (document) => isObject(document.base);

// Splits a document into a job's spec and the rest of the sweep, which is null for a single job.
export function splitSweep(document) {
  if (!isSweep(document)) return { job: document, sweep: null };
  const { base, name, seeds, ...sweep } = document;
  const space = isObject(sweep.space)
    ? Object.fromEntries(
      Object.entries(sweep.space).filter(([, range]) => isObject(range)).map((
        [name, range],
      ) => [settingName(name), range]),
    )
    : {};
  return {
    job: name === undefined ? base : { ...base, name },
    sweep: { ...sweep, space, ...(Array.isArray(seeds) && { seeds }) },
  };
}

// The inverse: joins both into one document.
export function joinSweep({ name, ...base }, sweep) {
  if (!sweep) return name === undefined ? base : { ...base, name };
  return { ...(name === undefined ? {} : { name }), base, ...sweep };
}

export class Tries {
  // changed(): called when the sweep changes.
  constructor(changed) {
    this.changed = changed;
    this.sweep = null; // without its base
    this.openers = new Map(); // setting -> begins to try values around the current one
    this.prefills = new Map(); // setting -> { initial, values }: how its values were prefilled
  }

  get(setting) {
    if (setting !== SEED) return this.sweep?.space[setting];
    return this.sweep?.seeds && { choice: this.sweep.seeds };
  }

  set(setting, range) {
    const sweep = structuredClone(this.sweep ?? { space: {} });
    if (setting === SEED) {
      if (range) sweep.seeds = range.choice;
      else delete sweep.seeds;
    } else if (range) sweep.space[setting] = range;
    else delete sweep.space[setting];
    const isFinite = Object.values(sweep.space).every((range) => !range.log && (!range.float || range.step));
    if (!isFinite && (sweep.search?.name ?? "grid") === "grid") sweep.search = { name: "random", trials: DRAWN_TRIALS };
    if (!Object.keys(sweep.space).length) {
      delete sweep.search; // there is only one trial
      delete sweep.halving;
    }
    this.take(sweep);
  }

  prefill(setting, initial) {
    const choice = initial();
    this.prefills.set(setting, { initial, values: JSON.stringify({ choice }) });
    this.set(setting, { choice });
  }

  // Prefills values that were not edited around the current defaults: another dataset or preset has others.
  follow() {
    for (const [setting, { initial, values }] of this.prefills) {
      if (JSON.stringify(this.get(setting)) !== values) this.prefills.delete(setting);
      else if (initial().length && JSON.stringify({ choice: initial() }) !== values) {
        return this.prefill(setting, initial); // which draws, and follows, again
      }
    }
  }

  // Replaces the sweep; parts that are undefined are removed.
  change(sweep) {
    this.take(Object.fromEntries(Object.entries(sweep).filter(([, value]) => value !== undefined)));
  }

  take(sweep) {
    const isEmpty = !Object.keys(sweep.space).length && !sweep.seeds;
    this.sweep = isEmpty ? null : sweep;
    this.changed();
  }

  // The button that offers several values for a field, and the row to enter them; null for fields that cannot vary.
  // value(): the field's current value.
  offer(schema, path, name, id, value) {
    const setting = path.join(".");
    const isNumber = schema.type === "integer" || schema.type === "number";
    const choices = schema.enum ?? (schema.type === "boolean" ? [true, false] : null);
    if (FIXED.test(setting) || !(isNumber || choices)) return null;
    const close = h("button", {
      type: "button",
      class: "back",
      title: "Use one value",
      "aria-label": `Use one value of ${name}`,
      onclick: () => this.set(setting, null),
    }, "✕");
    const values = choices ? boxes(choices, name) : numbers(schema, name, id, setting === SEED);
    values.listen(() => this.set(setting, values.read()));
    const row = h("div", { class: "tries", hidden: true }, values.elements, close);
    const initial = () => (setting === SEED ? [0, 1, 2] : (choices ?? initialValues(schema, value())));
    this.openers.set(setting, () => this.prefill(setting, initial));
    const open = () => {
      this.openers.get(setting)();
      (row.querySelector("input[type=text], input") ?? close).focus();
    };
    const button = h("button", {
      type: "button",
      class: "try",
      title: "Try several values: a sweep",
      "aria-label": `Try several values of ${name}`,
      onclick: open,
    }, "several");
    const sync = (element) => {
      const range = this.get(setting);
      row.hidden = !range;
      button.hidden = Boolean(range);
      element.hidden = Boolean(range);
      if (range && !row.contains(document.activeElement)) values.show(range);
    };
    return { button, row, sync };
  }
}

// Check boxes for a choice of values.
function boxes(choices, name) {
  const all = choices.map((value) => h("input", { type: "checkbox", value: JSON.stringify(value) }));
  const labels = all.map((box, index) =>
    h(
      "label",
      { class: "inline small" },
      box,
      typeof choices[index] === "string" ? words(choices[index]) : choices[index] ? "on" : "off",
    )
  );
  return {
    elements: h("div", { class: "row", role: "group", "aria-label": `Values of ${name}` }, labels),
    listen: (changed) => all.forEach((box) => box.addEventListener("change", changed)),
    read: () => ({ choice: choices.filter((_, index) => all[index].checked) }),
    show: (range) => all.forEach((box, index) => (box.checked = [range.choice].flat().includes(choices[index]))),
  };
}

// A text field for numbers: a list or a range.
function numbers(schema, name, id, isList) {
  const kind = h(
    "select",
    { "aria-label": `How to try ${name}`, hidden: isList },
    Object.entries(KINDS).map(([value, [label]]) => h("option", { value }, label)),
  );
  const text = h("input", {
    type: "text",
    autocomplete: "off",
    "aria-label": `Values of ${name}`,
    "aria-describedby": `${id}-fault`,
  });
  const span = schema.type === "integer" ? "int" : "float";
  // Of seeds, 0-4 are the numbers from 0 to 4.
  const expanded = (entry) => {
    const [, first, last] = (isList && /^(\d{1,6})\s*-\s*(\d{1,6})$/.exec(entry)) || [];
    const count = Number(last) - Number(first) + 1;
    return count > 0 && count <= MAX_EXPANDED
      ? Array.from({ length: count }, (_, index) => String(Number(first) + index))
      : [entry];
  };
  const entries = () =>
    text.value.split(",").map((entry) => entry.trim()).filter(Boolean).flatMap(expanded).map((
      entry,
    ) => (Number.isNaN(Number(entry)) ? entry : Number(entry)));
  return {
    elements: [kind, text],
    listen(changed) {
      text.addEventListener("input", changed);
      kind.addEventListener("change", () => {
        const values = entries().filter((entry) => typeof entry === "number");
        if (kind.value !== "choice" && values.length > 1) text.value = `${Math.min(...values)}, ${Math.max(...values)}`;
        changed();
      });
    },
    read() {
      text.placeholder = KINDS[kind.value][1];
      if (kind.value === "choice") return { choice: entries() };
      const [from, to, step] = entries();
      const bounds = [from, to].filter((bound) => bound !== undefined);
      return kind.value === "log" ? { log: bounds } : { [span]: bounds, ...(step === undefined ? {} : { step }) };
    },
    show(range) {
      kind.value = range.choice ? "choice" : range.log ? "log" : "span";
      const bounds = range.choice ?? range.log ??
        [...(range.int ?? range.float ?? []), ...(range.step === undefined ? [] : [range.step])];
      text.value = Array.isArray(bounds) ? bounds.join(", ") : "";
      text.placeholder = KINDS[kind.value][1];
    },
  };
}

// Initial values to try: the current one, a smaller and a larger one, within the allowed range.
function initialValues(schema, value) {
  if (typeof value !== "number") return [];
  const isWhole = schema.type === "integer";
  const candidates = [value / (isWhole ? 2 : 3), value, value * (isWhole ? 2 : 3)].map((
    item,
  ) => (isWhole ? Math.round(item) : Number(item.toPrecision(2))));
  candidates[1] = value;
  const isAllowed = (item) =>
    item >= (schema.minimum ?? -Infinity) && item <= (schema.maximum ?? Infinity) &&
    item > (schema.exclusiveMinimum ?? -Infinity) && item < (schema.exclusiveMaximum ?? Infinity);
  return [...new Set(candidates)].filter(isAllowed);
}

// Maps faults of a sweep to fields of the form: those of the base, and those with several values.
export function locate(faults) {
  return faults.map((fault) => {
    const pointer = fault.pointer ?? "";
    if (pointer.startsWith("#/base/")) return { ...fault, pointer: `#${pointer.slice(6)}` };
    const [, name] = pointer.startsWith("#/seeds") ? [null, SEED] : (/^#\/space\/([^/]+)/.exec(pointer) ?? []);
    if (name) {
      return {
        ...fault,
        pointer: `#/${settingName(name.replaceAll("~1", "/").replaceAll("~0", "~")).replaceAll(".", "/")}`,
        suggestion: null,
      };
    }
    return { ...fault, suggestion: null };
  });
}
