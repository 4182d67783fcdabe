// The preview of a table to upload: its first rows, the roles of its columns, and the types that the service detects.
import { $, $$, capital, counted, h, metric } from "../common/dom.js";
import { call } from "../common/api.js";
import { requestSequence } from "../common/latest.js";

const START_BYTES = 256 * 1024; // what the service reads for the preview
const SHOWN_ROWS = 5;
const MAX_NAMED_CLASSES = 6;
const TYPES = ["number", "category", "date", "ignore"];

export class TablePreview {
  // faultText(error): the problem, in words of the form.
  constructor(form, faultText) {
    this.holder = $("#table-preview");
    [this.target, this.split, this.sentTypes] = ["target", "split", "types"].map((name) => $(`[name=${name}]`, form));
    this.options = $$("[data-format=table] [name]", form).filter(({ type }) => type !== "file");
    this.faultText = faultText;
    this.next = requestSequence();
    this.answered = Promise.resolve();
    for (const option of this.options) option.addEventListener("change", () => this.detect());
    this.clear();
  }

  clear() {
    this.next(); // no pending answer is about this file
    this.types = {};
    this.found = null;
    this.rows = [];
    this.names = [];
    this.holder.replaceChildren();
    this.sentTypes.value = "";
    this.offer();
  }

  async show(file) {
    this.clear();
    const isNewest = this.next();
    const { text, isWhole } = await startOf(file).catch(() => ({ text: "" }));
    if (!isNewest() || !text || /[\u0000-\u0008]/.test(text)) return;
    [this.text, this.isWhole] = [text, isWhole];
    this.read(delimiterOf(text));
    await this.detect();
  }

  read(delimiter) {
    const [header = [], ...rows] = records(this.text.replace(/^\ufeff?sep=.\r?\n/, ""), delimiter, SHOWN_ROWS + 1);
    this.rows = rows;
    this.names = header.map((name, index) => name.trim().replace(/^\ufeff/, "") || `column_${index + 1}`);
    this.offer();
    this.draw();
  }

  offer() {
    for (const [select, none] of [[this.target, "the last one"], [this.split, "none"]]) {
      select.replaceChildren(
        h("option", { value: "" }, none),
        ...this.names.map((name) => h("option", { value: name }, name)),
      );
    }
  }

  // Asks the service how it would read the columns: one question at a time, since each takes one of few slots.
  async detect() {
    if (this.names.length < 2) return;
    this.sentTypes.value = Object.keys(this.types).length ? JSON.stringify(this.types) : "";
    this.mark("Detecting the types of the columns…");
    const isNewest = this.next();
    const body = new FormData();
    body.append("name", "preview");
    for (const field of this.options) {
      if (field.value) body.append(field.name, field.value);
    }
    body.append("table", new Blob([this.text]), "preview.csv");
    await this.answered;
    if (!isNewest()) return;
    this.answered = call("/datasets?dry_run=true", { method: "POST", body }).catch((error) => ({ error }));
    const answer = await this.answered;
    if (!isNewest()) return;
    this.found = answer.error ? null : answer;
    if (
      this.found && this.found.report.delimiter !== delimiterOf(this.text) && !this.target.value && !this.split.value
    ) this.read(this.found.report.delimiter);
    this.mark(answer.error ? this.faultText(answer.error) : this.summary(), Boolean(answer.error));
  }

  // Builds the table; what each column is for is filled in by mark().
  draw() {
    this.roles = this.names.map(() => h("td"));
    this.status = h("p", { class: "small muted", role: "status" });
    this.holder.replaceChildren(
      h(
        "div",
        { class: "scroll", tabindex: 0, role: "group", "aria-label": "The first rows, scrolls sideways" },
        h(
          "table",
          {},
          h(
            "thead",
            {},
            h("tr", {}, this.names.map((name) => h("th", { scope: "col" }, name))),
            h("tr", {}, this.roles),
          ),
          h(
            "tbody",
            {},
            this.rows.map((row) => h("tr", {}, this.names.map((_, index) => h("td", {}, row[index] ?? "")))),
          ),
        ),
      ),
      this.status,
    );
  }

  mark(status, isFault = false) {
    this.status.textContent = status;
    this.status.className = isFault ? "small fault" : "small muted";
    if (this.found && !this.target.value) {
      $("option", this.target).textContent = `the last one: ${this.found.report.target}`;
    }
    this.names.forEach((name, index) => {
      const cell = this.roles[index];
      const role = name === (this.target.value || this.found?.report.target)
        ? (this.found?.task === "regression" ? "target" : "class")
        : name === this.split.value
        ? "part"
        : "";
      if (role) return void cell.replaceChildren(h("strong", { class: "small" }, role));
      if (!$("select", cell)) cell.replaceChildren(this.typeSelect(name));
      const type = this.found?.columns.find((column) => column.name === name)?.type;
      const leftOut = this.found?.report.ignored?.find((column) => column.name === name);
      const detected = this.types[name] ? null : leftOut ? "left out" : type;
      $("option", cell).textContent = detected ? `${detected} (detected)` : "detect";
      $("select", cell).title = leftOut?.reason ?? "";
    });
  }

  typeSelect(name) {
    const choose = () => {
      if (select.value) this.types[name] = select.value;
      else delete this.types[name];
      return this.detect();
    };
    const select = h(
      "select",
      { "aria-label": `Type of ${name}`, onchange: choose },
      h("option", { value: "" }),
      TYPES.map((type) => h("option", { value: type }, type)),
    );
    select.value = this.types[name] ?? "";
    return select;
  }

  summary() {
    const { train_count, validation_count, test_count, task, target, class_names, report } = this.found;
    const rows = train_count + validation_count + test_count;
    const named = class_names.slice(0, MAX_NAMED_CLASSES).join(", ");
    const learned = task === "regression"
      ? `the number to predict is ${target} (${report.range.map((limit) => metric("val_rmse", limit)).join(" to ")})`
      : `${class_names.length} classes: ${named}${class_names.length > MAX_NAMED_CLASSES ? ", …" : ""}`;
    const sentences = [
      `${this.isWhole ? "" : "In the first 256 kB: "}${counted(rows, "row")}${
        task === "regression" ? ";" : ","
      } ${learned}.`,
    ];
    for (const { name, reason } of report.ignored ?? []) {
      if (!this.types[name]) sentences.push(`${name} is left out: ${reason}.`);
    }
    return [...sentences, ...(report.notes ?? []).map((note) => `${capital(note)}.`)].join(" ");
  }
}

// The first rows of a text with delimiters; their first one has the names of the columns.
export const firstRows = (text, count) => records(text, delimiterOf(text), count + 1);

// The first lines of a file, as text; of a gzipped file, unpacked.
async function startOf(file) {
  const stream = /\.gz$/i.test(file.name) ? file.stream().pipeThrough(new DecompressionStream("gzip")) : file.stream();
  const reader = stream.getReader();
  const chunks = [];
  let size = 0;
  let isWhole = false;
  while (!isWhole && size <= START_BYTES) {
    const { done, value } = await reader.read();
    isWhole = done;
    if (value) chunks.push(value);
    size += value?.length ?? 0;
  }
  reader.cancel();
  const bytes = new Uint8Array(await new Blob(chunks).arrayBuffer()).slice(0, START_BYTES);
  isWhole = isWhole && size <= START_BYTES;
  return { isWhole, text: decoded(isWhole ? bytes : bytes.slice(0, bytes.lastIndexOf(10) + 1)) };
}

function decoded(bytes) {
  const wide = { "255,254": "utf-16le", "254,255": "utf-16be" }[bytes.slice(0, 2).join()];
  if (wide) return new TextDecoder(wide).decode(bytes).replace(/[^\n]*$/, "");
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(bytes);
  }
}

// The delimiter that gives the first rows equally many fields, as far as the rows shown tell.
function delimiterOf(text) {
  const width = (delimiter) => {
    const counts = records(text, delimiter, SHOWN_ROWS).map((row) => row.length);
    return counts.every((count) => count === counts[0]) ? counts[0] : 1.5;
  };
  return [",", "\t", ";", "|"].reduce((best, candidate) => (width(candidate) > width(best) ? candidate : best));
}

// The first records of a text with delimiters, as lists of fields.
function records(text, delimiter, count) {
  const rows = [];
  let [row, cell, isQuoted] = [[], "", false];
  for (let at = 0; at <= text.length && rows.length < count; at += 1) {
    const character = text[at] ?? "\n";
    if (isQuoted && character === '"' && text[at + 1] === '"') cell += text[at += 1];
    else if (isQuoted && at < text.length) character === '"' ? (isQuoted = false) : (cell += character);
    else if (character === '"' && !cell) isQuoted = true;
    else if (character === delimiter || character === "\n") {
      row.push(cell.replace(/\r$/, ""));
      cell = "";
      if (character === "\n") {
        if (row.length > 1 || row[0]) rows.push(row);
        row = [];
      }
    } else cell += character;
  }
  return rows;
}
