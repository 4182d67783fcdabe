// The choice of kind and preset: a card for each preset with description, typical result and duration.
import { $, $$, capital, describe, duration, h, kindOf, metric, percent } from "../common/dom.js";

const FORMER_NAMES = { seed: "classic" }; // in the specs of old jobs

export class PresetCards {
  // presets, datasets: as listed by the service; selected(kind, preset): called when one is chosen.
  constructor(presets, selected, datasets) {
    this.datasets = new Map(datasets.map((item) => [item.name, item]));
    this.presets = presets;
    this.selected = selected;
    const kinds = [...new Set(presets.map((preset) => preset.kind))];
    $("#kinds").append(
      ...kinds.map((kind) =>
        h("button", {
          type: "button",
          value: kind,
          onclick: () => selected(kind, this.defaultOf({ kind }).name),
        }, capital(kindOf(kind).title))
      ),
    );
  }

  // The preset of a spec that names none: that of the dataset, if its kind has it.
  defaultOf({ kind, dataset }) {
    const suitable = this.find(kind, this.datasetOf(dataset)?.default_preset);
    return suitable || this.presets.find((preset) => preset.kind === kind && preset.is_default);
  }

  datasetOf(dataset) {
    const [name] = ((typeof dataset === "string" ? dataset : dataset?.name) ?? "").split("@"); // without the version
    return this.datasets.get(name);
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
    const dataset = this.datasetOf(sent.dataset); // until one is chosen, each preset brings its own
    const shown = this.presets.filter((item) =>
      item.kind === preset.kind && (item === preset || this.fits(item, dataset))
    );
    const key = `${dataset?.name} ${shown.map(({ kind, name }) => `${kind} ${name}`)}`;
    if ($("#presets").dataset.shown !== key) {
      $("#presets").dataset.shown = key;
      const focused = $("#presets").contains(document.activeElement) ? document.activeElement.value : null;
      $("#presets").replaceChildren(...shown.map((item) => this.card(item, dataset)));
      $$("#presets button").find(({ value }) => value === focused)?.focus();
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

  // Whether a preset is for such data: for images, or for tables.
  fits(preset, dataset) {
    const own = this.datasetOf(preset.spec.dataset);
    return !dataset || !own || (own.kind === dataset.kind && own.task === dataset.task);
  }

  // What a preset reaches on the chosen dataset or, if that was not measured, on data like it.
  figures(reaches, dataset) {
    const exact = reaches.filter((item) => item.dataset === dataset?.name);
    return exact.length
      ? exact
      : reaches.filter((item) => !dataset || isLike(this.datasets.get(item.dataset), dataset));
  }

  card({ kind, name, summary, reaches: measured }, dataset) {
    const reaches = this.figures(measured, dataset);
    const [first] = reaches;
    const info = first && describe(first.metric);
    return h(
      "div",
      { class: "preset" },
      h("button", {
        type: "button",
        value: name,
        "aria-describedby": `preset-${name}`,
        onclick: () => this.selected(kind, name),
      }, h("strong", {}, name)),
      h(
        "div",
        { class: "about", id: `preset-${name}` },
        h("p", {}, summary),
        first &&
          h(
            "table",
            {},
            h(
              "caption",
              { title: `${info.description} Measured on one core.` },
              `${capital(info.label)}${info.goal === "minimize" ? " (lower is better)" : ""}, time on one core`,
            ),
            h(
              "tbody",
              {},
              reaches.map((item) =>
                h(
                  "tr",
                  {},
                  h("th", { scope: "row" }, item.dataset),
                  h("td", { class: "number" }, short(item)),
                  h("td", { class: "number" }, item.seconds < 1 ? "< 1 s" : duration(item.seconds)),
                )
              ),
            ),
          ),
      ),
    );
  }
}

// Whether results on one dataset tell something about the other: tables, or images of one colour and about one size.
function isLike(item, dataset) {
  if (item?.kind !== dataset.kind) return false;
  if (item.kind === "table") return item.task === dataset.task;
  const [[rows, columns, channels = 1], [otherRows, otherColumns, otherChannels = 1]] = [
    item.image_shape,
    dataset.image_shape,
  ];
  const ratio = (rows * columns) / (otherRows * otherColumns);
  return channels === otherChannels && ratio > 0.5 && ratio < 2;
}

const short = (
  { metric: name, value },
) => (describe(name).percent ? percent(value) : metric(name, Number(value.toPrecision(2))));
