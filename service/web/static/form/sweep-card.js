// The card with the parts of a sweep around its space: search, halving, objective and limits. A field's name is its
// path in the sweep; an empty field stands for the service's default, which its placeholder shows.
import { $$, capital, counted, describe, h, keyMetrics, sentence } from "../common/dom.js";
import { isObject, valueAt } from "./schema/document.js";
import { DRAWN_TRIALS, SEED } from "./sweep-fields.js";

const DEFAULTS = {
  "search/name": "grid",
  "halving/mode": "synchronous",
  "objective/over_seeds": "mean",
  reuse: "prefix",
};
const HINTS = {
  "halving/mode": {
    synchronous: "Decides when all trials have reached a rung.",
    asynchronous: "Promotes a trial as soon as it is among the best so far.",
  },
  reuse: {
    prefix: "Takes over results of equal jobs, and continues shorter ones.",
    exact: "Takes over results of equal jobs.",
    never: "Trains every epoch.",
  },
};
// Where the fault of a whole part is shown.
const PARENTS = { objective: "objective/metric", search: "search/name", budget: "budget/epochs" };
const USUAL_STAGES = 9; // by default, trials train for 1 / USUAL_STAGES of their epochs before the first decision

export class SweepCard {
  // value(path): returns the value of a field of the base.
  constructor(card, tries, value) {
    Object.assign(this, { card, tries, value });
    this.space = card.querySelector("[data-space]");
    this.spaceFault = card.querySelector("#sweep-space-fault");
    this.more = card.querySelector("details");
    this.fields = new Map(); // name -> { element, box, fault, hint }
    for (const box of $$(".field", card)) {
      const element = box.querySelector("input, select");
      const [hint, fault] = [box.querySelector(".hint"), box.querySelector(".fault")];
      element.setAttribute("aria-describedby", [hint, fault].filter(Boolean).map(({ id }) => id).join(" "));
      this.fields.set(element.name, { element, box, fault, hint });
      const change = () =>
        this.write(element.name, element.type === "checkbox" ? element.checked : element.value.trim());
      element.addEventListener(element.tagName === "INPUT" && element.type !== "checkbox" ? "input" : "change", change);
    }
  }

  get metric() {
    return keyMetrics(this.value(["kind"]))[0] ?? keyMetrics()[0];
  }

  // Sets the part of the sweep that a field edits; "" removes it.
  write(name, input) {
    const sweep = structuredClone(this.tries.sweep);
    const [sectionName, key] = name.split("/");
    const isNumeric = this.fields.get(name).element.inputMode === "numeric";
    // The service reports anything that is not a number.
    const value = input === "" ? undefined : isNumeric && Number.isFinite(Number(input)) ? Number(input) : input;
    const section = isObject(sweep[sectionName]) ? sweep[sectionName] : {};
    if (name === "halving") sweep.halving = input ? { min_epochs: this.firstEpochs() } : undefined;
    else if (name === "search/name") {
      sweep.search = input === DEFAULTS[name]
        ? undefined
        : { ...section, name: input, trials: section.trials ?? DRAWN_TRIALS };
    } else if (!key) sweep[sectionName] = value;
    else {
      section[key] = value;
      if (value === undefined) delete section[key];
      if (sectionName === "objective" && Object.keys(section).length) section.metric ??= this.metric;
      sweep[sectionName] = sectionName === "halving" || Object.keys(section).length ? section : undefined;
    }
    this.tries.change(sweep);
  }

  // The number of epochs before the first decision: at least one measurement of the objective.
  firstEpochs() {
    const metric = valueAt(this.tries.sweep, ["objective", "metric"]) ?? this.metric;
    const measured = describe(String(metric)).sparse ? this.value(["health", "every_epochs"]) : 1;
    return Math.max(1, Number(measured) || 1, Math.floor(this.value(["epochs"]) / USUAL_STAGES) || 1);
  }

  show() {
    const { sweep } = this.tries;
    this.card.hidden = !sweep;
    if (!sweep) return;
    const hasNoSpace = !Object.keys(sweep.space).length;
    for (const element of $$("[data-needs-space]", this.card)) element.hidden = hasNoSpace;
    this.card.querySelector("[data-alone]").hidden = !hasNoSpace;
    for (const [name, field] of this.fields) this.showField(name, field, sweep);
    const setCount =
      [...this.fields].filter(([name, { box }]) =>
        this.more.contains(box) && (valueAt(sweep, name.split("/")) ?? null) !== null
      ).length;
    this.more.querySelector(".count").textContent = setCount ? `${setCount} set` : "";
    const chip = (setting) =>
      h("button", {
        type: "button",
        class: "tag",
        "aria-label": `Remove ${setting} from the sweep`,
        title: "Use one value",
        onclick: () => this.tries.set(setting, null),
      }, `${setting}: ${summarize(this.tries.get(setting))} ✕`);
    this.space.replaceChildren(...[...Object.keys(sweep.space), ...(sweep.seeds ? [SEED] : [])].map(chip));
  }

  // The hint for an empty goal: the metric's default goal.
  usualGoal(chosen) {
    const { goal, label } = describe(String(valueAt(this.tries.sweep, ["objective", "metric"]) ?? this.metric));
    return chosen || !goal ? "" : `${capital(goal)}s ${label}.`;
  }

  showField(name, { element, box, fault, hint }, sweep) {
    const value = valueAt(sweep, name.split("/")) ?? null;
    if (name === "objective/metric") element.placeholder = this.metric;
    if (element.type === "checkbox") element.checked = value !== null;
    else if (element.tagName === "SELECT") element.value = value ?? DEFAULTS[name] ?? "";
    else if (element !== document.activeElement) {
      element.value = typeof value === "object" && value !== null ? JSON.stringify(value) : (value ?? "");
    }
    if (name === "objective/goal") hint.textContent = this.usualGoal(element.value);
    else if (name in HINTS) hint.textContent = HINTS[name][element.value] ?? "";
    box.hidden = !this.applies(name, sweep) && fault.hidden;
  }

  applies(name, sweep) {
    const hasSpace = Object.keys(sweep.space).length > 0;
    const isDrawn = (sweep.search?.name ?? DEFAULTS["search/name"]) !== "grid";
    if (name === "search/trials" || name === "search/seed") return hasSpace && isDrawn;
    if (name.startsWith("halving/")) return hasSpace && (sweep.halving ?? null) !== null;
    if (name === "search/name" || name === "halving") return hasSpace;
    if (name === "objective/over_seeds") {
      return (sweep.seeds?.length ?? 1) > 1 || valueAt(sweep, ["objective", "over_seeds"]) !== undefined;
    }
    return true;
  }

  // Shows each fault of a sweep at its field; returns those without a field here.
  showFaults(faults) {
    this.spaceFault.hidden = true;
    for (const { element, fault } of this.fields.values()) {
      element.removeAttribute("aria-invalid");
      fault.hidden = true;
      fault.replaceChildren();
    }
    const remaining = faults.filter((fault) => !this.showFault(fault));
    if (this.tries.sweep) this.show(); // a field without effect is visible while it has a fault
    return remaining;
  }

  showFault({ pointer = "", detail, suggestion }) {
    if (pointer === "#/space") {
      this.spaceFault.textContent = [this.spaceFault.hidden ? "" : this.spaceFault.textContent, sentence(detail)]
        .filter(Boolean).join(" ");
      this.spaceFault.hidden = false;
      return true;
    }
    let name = pointer.slice(2);
    while (name && !this.fields.has(name) && !PARENTS[name]) name = name.slice(0, Math.max(0, name.lastIndexOf("/")));
    const field = this.fields.get(PARENTS[name] ?? name);
    if (!field) return false;
    const { element, fault } = field;
    element.setAttribute("aria-invalid", "true");
    fault.hidden = false;
    fault.append(fault.childNodes.length ? " " : "", sentence(detail), " ");
    if (suggestion) {
      fault.append(h("button", {
        type: "button",
        class: "slim",
        onclick: () => this.write(element.name, suggestion),
      }, `Use ${suggestion}`));
    }
    if (this.more.contains(element)) this.more.open = true;
    return true;
  }
}

function summarize(range) {
  const valueText = (value) => (isObject(value) ? (value.name ?? JSON.stringify(value)) : String(value));
  if (Array.isArray(range.choice)) {
    return range.choice.length > 6 ? counted(range.choice.length, "value") : range.choice.map(valueText).join(", ");
  }
  const [from, to] = range.log ?? range.int ?? range.float ?? [];
  return `${from} to ${to}${range.log ? ", log" : ""}${range.step === undefined ? "" : `, step ${range.step}`}`;
}
