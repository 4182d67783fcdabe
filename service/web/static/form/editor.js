// The spec as JSON, beside the form. While the text is invalid, the rest of the page is marked as outdated.
import { copy } from "../common/dialogs.js";
import { $, $$, sentence } from "../common/dom.js";
import { curl, python } from "./snippets.js";

export class Editor {
  // changed(document): valid JSON was typed; broken(): invalid JSON was typed.
  constructor({ changed, broken }) {
    this.area = $("#json");
    this.broken = broken;
    this.changed = changed;
    this.text = ""; // exactly what will be sent
    this.valid = null; // the last valid document
    this.isValid = true;
    this.area.addEventListener("input", () => this.typed());
    for (const button of $$("[data-restore]")) {
      button.addEventListener("click", () => changed(this.valid, { restored: true }));
    }
    for (const button of $$("[data-tab]")) button.addEventListener("click", () => this.open(button.dataset.tab));
    $("#copy").addEventListener("click", () => this.copy());
  }

  type(text) {
    this.area.value = text;
    this.typed();
  }

  typed() {
    this.text = this.area.value;
    try {
      const document = JSON.parse(this.text);
      if (typeof document !== "object" || document === null || Array.isArray(document)) {
        throw new SyntaxError("A spec is a JSON object: it begins with { and ends with }.");
      }
      this.changed(document, { typed: true });
    } catch (error) {
      this.refuse(describeParseError(error.message, this.text));
    }
  }

  // Shows a document; keeps the text as typed if the document came from it.
  show(document, { typed = false } = {}) {
    this.valid = structuredClone(document);
    this.isValid = true;
    if (!typed) {
      this.text = JSON.stringify(document, null, 2);
      this.area.value = this.text;
    }
    this.area.removeAttribute("aria-invalid");
    $("#json-fault").hidden = true;
    $("#stale").hidden = true;
    $("#form").inert = false;
    const options = { keys: Boolean(this.area.dataset.keys) };
    $("#curl").textContent = curl(this.text, document, options);
    $("#python").textContent = python(document, options);
  }

  refuse(detail) {
    this.isValid = false;
    for (const element of $$("[data-json-fault]")) element.textContent = detail;
    this.area.setAttribute("aria-invalid", "true");
    $("#json-fault").hidden = false;
    $("#stale").hidden = false;
    $("#form").inert = true;
    for (const panel of ["#curl", "#python"]) $(panel).textContent = "The JSON is not valid.";
    this.broken();
  }

  open(tab) {
    for (const button of $$("[data-tab]")) button.setAttribute("aria-pressed", String(button.dataset.tab === tab));
    for (const panel of $$("[data-panel]")) panel.hidden = panel.dataset.panel !== tab;
  }

  copy() {
    const panel = $$("[data-panel]").find((item) => !item.hidden);
    const source = panel.dataset.panel === "json" ? this.area : panel;
    return copy(source.value ?? source.textContent, source);
  }
}

// A browser's parse error, prefixed with line and column, which each browser words differently or omits.
function describeParseError(message, text) {
  const explicit = /line (\d+) column (\d+)/.exec(message);
  const offset = /at position (\d+)/.exec(message);
  let position = explicit?.slice(1).map(Number);
  if (!position && offset) {
    const lines = text.slice(0, Number(offset[1])).split("\n");
    position = [lines.length, lines.at(-1).length + 1];
  }
  if (!position && /end of (JSON )?(input|data)/i.test(message)) {
    position = [text.split("\n").length, text.split("\n").at(-1).length + 1];
  }
  const plain = message.replace(/^JSON\.parse: /, "").replace(
    / in JSON at position.*| at line \d+ column.*|, "?\.\.\..* is not valid JSON$/s,
    "",
  );
  const detail = sentence(plain);
  return position ? `Line ${position[0]}, column ${position[1]}: ${detail}` : detail;
}
