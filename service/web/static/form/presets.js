// What to train and where to start: the kinds, and a card for each preset with what it is, reaches and takes.
import { $, $$, capital, describe, duration, h, metric, percent, words } from "../dom.js";

const TABLE_PRESET = "table";
const KINDS = { classifier: "Classifier", gan: "GAN" };

export class PresetCards {
  // presets: as GET /presets lists them; selected(kind, preset): somebody picked one.
  // tables: names of datasets that are tables, whose classifiers start from another preset.
  constructor(presets, selected, tables) {
    this.tables = tables;
    this.defaults = new Map(); // "kind dataset" -> name of the preset, as the service told
    this.presets = presets;
    this.selected = selected;
    const kinds = [...new Set(presets.map((preset) => preset.kind))];
    $("#kinds").append(...kinds.map((kind) => h("button", { type: "button", value: kind, onclick: () => selected(kind, this.defaultOf(kind).name) }, KINDS[kind] ?? words(kind))));
  }

  defaultOf(kind) {
    return this.presets.find((preset) => preset.kind === kind && preset.is_default);
  }

  find(kind, name) {
    return this.presets.find((preset) => preset.kind === kind && preset.name === name);
  }

  // The preset that a spec starts from; none where its kind or preset is unknown.
  of({ kind, preset, dataset }) {
    if (preset !== undefined) return this.find(kind, preset);
    const name = typeof dataset === "string" ? dataset : dataset?.name;
    const told = this.find(kind, this.defaults.get(`${kind} ${name}`));
    if (told) return told;
    const isTable = this.tables.has(name); // a guess, until it is told
    return (isTable && this.find(kind, TABLE_PRESET)) || this.defaultOf(kind);
  }

  // spec: has the dataset, whose default preset has the badge.
  show(preset, { dataset }) {
    for (const button of $$("#kinds button")) button.setAttribute("aria-pressed", String(button.value === preset.kind));
    if ($("#presets").dataset.kind !== preset.kind) {
      $("#presets").dataset.kind = preset.kind;
      const same = this.presets.filter(({ kind }) => kind === preset.kind);
      $("#presets").replaceChildren(...same.map((item) => this.card(item)));
    }
    const standard = this.of({ kind: preset.kind, dataset })?.name;
    for (const button of $$("#presets button")) {
      const isDefault = button.value === standard;
      button.setAttribute("aria-pressed", String(button.value === preset.name));
      button.setAttribute("aria-label", `Preset ${button.value}${isDefault ? ", default" : ""}`);
      $(".tag", button)?.remove();
      if (isDefault) button.append(h("span", { class: "tag" }, "default"));
    }
  }

  card({ kind, name, summary, reaches }) {
    const [first] = reaches;
    const info = first && describe(first.metric);
    return h("div", { class: "preset" },
      h("button", { type: "button", value: name, "aria-describedby": `preset-${name}`, onclick: () => this.selected(kind, name) },
        h("strong", {}, name)),
      h("div", { class: "about", id: `preset-${name}` },
        h("p", {}, summary),
        first && h("table", {},
          h("caption", { title: `${info.description} Measured on one core.` }, `${capital(info.label)}${info.goal === "minimize" ? " (lower is better)" : ""}, time on one core`),
          h("tbody", {}, reaches.map((item) => h("tr", {}, h("th", { scope: "row" }, item.dataset), h("td", { class: "number" }, short(item)), h("td", { class: "number" }, item.seconds < 1 ? "< 1 s" : duration(item.seconds))))))));
  }
}

const short = ({ metric: name, value }) => (describe(name).percent ? percent(value) : metric(name, Number(value.toPrecision(2))));
