// The card with the parts of a sweep around its space: search, halving, objective and limits. A field's name is its
// path in the sweep; an empty field stands for the service's default, which its placeholder shows.
import { $$, capital, counted, describe, h, sentence } from "../dom.js";
import { at, isObject } from "./document.js";
import { DRAWN_TRIALS, SEED } from "./sweep-fields.js";

const METRICS = { classifier: "val_accuracy", gan: "frechet_distance" }; // defaults of the service
const DEFAULTS = { "search/name": "grid", "halving/mode": "synchronous", "objective/over_seeds": "mean", reuse: "prefix" };
const HINTS = {
  "halving/mode": { synchronous: "Decides when all trials have reached a rung.", asynchronous: "Promotes a trial as soon as it is among the best so far." },
  reuse: { prefix: "Takes over results of equal jobs, and continues shorter ones.", exact: "Takes over results of equal jobs.", never: "Trains every epoch." },
};
const PARENTS = { objective: "objective/metric", search: "search/name", budget: "budget/epochs" }; // where the fault of a whole part is shown
const USUAL_STAGES = 9; // by default, trials train for this fraction of their epochs before the first decision

export class SweepCard {
  // value(path): the value of a field of the base.
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
      const change = () => this.write(element.name, element.type === "checkbox" ? element.checked : element.value.trim());
      element.addEventListener(element.tagName === "INPUT" && element.type !== "checkbox" ? "input" : "change", change);
    }
  }

  get metric() {
    return METRICS[this.value(["kind"])] ?? METRICS.classifier;
  }

  // Changes a part of the sweep as a field says; "" removes it.
  write(name, said) {
    const sweep = structuredClone(this.tries.sweep);
    const [part, below] = name.split("/");
    const isNumeric = this.fields.get(name).element.inputMode === "numeric";
    const value = said === "" ? undefined : isNumeric && Number.isFinite(Number(said)) ? Number(said) : said; // a word is for the service to refuse
    const made = isObject(sweep[part]) ? sweep[part] : {};
    if (name === "halving") sweep.halving = said ? { min_epochs: this.firstEpochs() } : undefined;
    else if (name === "search/name") sweep.search = said === DEFAULTS[name] ? undefined : { ...made, name: said, trials: made.trials ?? DRAWN_TRIALS };
    else if (!below) sweep[part] = value;
    else {
      made[below] = value;
      if (value === undefined) delete made[below];
      if (part === "objective" && Object.keys(made).length) made.metric ??= this.metric;
      sweep[part] = part === "halving" || Object.keys(made).length ? made : undefined;
    }
    this.tries.change(sweep);
  }

  // The number of epochs before the first decision: at least one measurement of the objective.
  firstEpochs() {
    const metric = at(this.tries.sweep, ["objective", "metric"]) ?? this.metric;
    const measured = describe(String(metric)).sparse ? this.value(["health", "every_epochs"]) : 1;
    return Math.max(1, Number(measured) || 1, Math.floor(this.value(["epochs"]) / USUAL_STAGES) || 1);
  }

  show() {
    const { sweep } = this.tries;
    this.card.hidden = !sweep;
    if (!sweep) return;
    const isAlone = !Object.keys(sweep.space).length;
    for (const part of $$("[data-needs-space]", this.card)) part.hidden = isAlone;
    this.card.querySelector("[data-alone]").hidden = !isAlone;
    for (const [name, field] of this.fields) this.showField(name, field, sweep);
    const set = [...this.fields].filter(([name, { box }]) => this.more.contains(box) && (at(sweep, name.split("/")) ?? null) !== null).length;
    this.more.querySelector(".count").textContent = set ? `${set} set` : "";
    const chip = (pointer) => h("button", { type: "button", class: "tag", "aria-label": `Use one value of ${pointer}`, title: "Use one value", onclick: () => this.tries.set(pointer, null) }, `${pointer.slice(1)}: ${brief(this.tries.get(pointer))} ✕`);
    this.space.replaceChildren(...[...Object.keys(sweep.space), ...(sweep.seeds ? [SEED] : [])].map(chip));
  }

  // What an empty goal means.
  usualGoal(chosen) {
    const { goal, label } = describe(String(at(this.tries.sweep, ["objective", "metric"]) ?? this.metric));
    return chosen || !goal ? "" : `${capital(goal)}s ${label}.`;
  }

  showField(name, { element, box, fault, hint }, sweep) {
    const value = at(sweep, name.split("/")) ?? null;
    if (name === "objective/metric") element.placeholder = this.metric;
    if (element.type === "checkbox") element.checked = value !== null;
    else if (element.tagName === "SELECT") element.value = value ?? DEFAULTS[name] ?? "";
    else if (element !== document.activeElement) element.value = typeof value === "object" && value !== null ? JSON.stringify(value) : (value ?? "");
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
    if (name === "objective/over_seeds") return (sweep.seeds?.length ?? 1) > 1 || at(sweep, ["objective", "over_seeds"]) !== undefined;
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
    const rest = faults.filter((told) => !this.tellOne(told));
    if (this.tries.sweep) this.show(); // a field without effect is visible while it has a fault
    return rest;
  }

  tellOne({ pointer = "", detail, suggestion }) {
    if (pointer === "#/space") {
      this.spaceFault.textContent = [this.spaceFault.hidden ? "" : this.spaceFault.textContent, sentence(detail)].filter(Boolean).join(" ");
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
    if (suggestion) fault.append(h("button", { type: "button", class: "slim", onclick: () => this.write(element.name, suggestion) }, `Use ${suggestion}`));
    if (this.more.contains(element)) this.more.open = true;
    return true;
  }
}

function brief(range) {
  const word = (value) => (isObject(value) ? (value.name ?? JSON.stringify(value)) : String(value));
  if (Array.isArray(range.choice)) return range.choice.length > 6 ? counted(range.choice.length, "value") : range.choice.map(word).join(", ");
  const [from, to] = range.log ?? range.int ?? range.float ?? [];
  return `${from} to ${to}${range.log ? ", log" : ""}${range.step === undefined ? "" : `, step ${range.step}`}`;
}
