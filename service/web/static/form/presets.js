// The choice of kind and preset: a card for each preset with description, typical result and duration.
import { $, $$, capital, describe, duration, h, metric, percent, words } from "../common/dom.js";

const FORMER_NAMES = { seed: "classic" }; // in the specs of old jobs
const KINDS = { classifier: "Classifier", regressor: "Regressor", gan: "GAN" };

export class PresetCards {
  // presets: as listed by GET /presets; selected(kind, preset): called when one is chosen.
  // defaults: a classifier's default preset by the name of its dataset.
  constructor(presets, selected, defaults) {
    this.defaults = defaults;
    this.presets = presets;
    this.selected = selected;
    const kinds = [...new Set(presets.map((preset) => preset.kind))];
    $("#kinds").append(...kinds.map((kind) => h("button", { type: "button", value: kind, onclick: () => selected(kind, this.defaultOf({ kind }).name) }, KINDS[kind] ?? words(kind))));
  }

  // The preset of a spec that names none; for a classifier it depends on the dataset.
  defaultOf({ kind, dataset }) {
    const [name] = ((typeof dataset === "string" ? dataset : dataset?.name) ?? "").split("@"); // without the version
    const suitable = kind === "classifier" && this.find(kind, this.defaults.get(name));
    return suitable || this.presets.find((preset) => preset.kind === kind && preset.is_default);
  }

  find(kind, name) {
    return this.presets.find((preset) => preset.kind === kind && preset.name === (FORMER_NAMES[name] ?? name));
  }

  // The preset of a spec; undefined if its kind or preset is unknown.
  of({ kind, preset, dataset }) {
    return preset === undefined ? this.defaultOf({ kind, dataset }) : this.find(kind, preset);
  }

  show(preset, sent) {
    for (const button of $$("#kinds button")) button.setAttribute("aria-pressed", String(button.value === preset.kind));
    if ($("#presets").dataset.kind !== preset.kind) {
      $("#presets").dataset.kind = preset.kind;
      const ofKind = this.presets.filter(({ kind }) => kind === preset.kind);
      $("#presets").replaceChildren(...ofKind.map((item) => this.card(item)));
    }
    const byDefault = this.defaultOf({ ...sent, kind: preset.kind });
    for (const button of $$("#presets button")) {
      const isDefault = button.value === byDefault.name;
      button.setAttribute("aria-pressed", String(button.value === preset.name));
      button.setAttribute("aria-label", `Preset ${button.value}${isDefault ? ", default" : ""}`);
      const tag = $(".tag", button);
      if (!isDefault) tag?.remove();
      else if (!tag) button.append(h("span", { class: "tag" }, "default"));
    }
  }

  card({ kind, name, summary, reaches }) {
    const [first] = reaches;
    const info = first && describe(first.metric);
    return h("div", { class: "preset" },
      h("button", { type: "button", value: name, "aria-describedby": `preset-${name}`, onclick: () => this.selected(kind, name) }, h("strong", {}, name)),
      h("div", { class: "about", id: `preset-${name}` },
        h("p", {}, summary),
        first && h("table", {},
          h("caption", { title: `${info.description} Measured on one core.` }, `${capital(info.label)}${info.goal === "minimize" ? " (lower is better)" : ""}, time on one core`),
          h("tbody", {}, reaches.map((item) => h("tr", {}, h("th", { scope: "row" }, item.dataset), h("td", { class: "number" }, short(item)), h("td", { class: "number" }, item.seconds < 1 ? "< 1 s" : duration(item.seconds))))))));
  }
}

const short = ({ metric: name, value }) => (describe(name).percent ? percent(value) : metric(name, Number(value.toPrecision(2))));
