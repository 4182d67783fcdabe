// Classifies the rows of a CSV file and adds the predictions, in the format of `tapeline predict`.
// Unlike the command, it does not convert numbers: those that are not written as in the training data are refused.
import { $, counted } from "../common/dom.js";
import { call } from "../common/api.js";
import { read, decimalOf } from "./delimited.js";

const BATCH_ROWS = 500;
const MAX_BYTES = 20e6;

// epoch(): the epoch of the checkpoint to use.
export function wireFile(job, epoch) {
  let runNumber = 0;

  $("#rows-file").addEventListener("change", async ({ target }) => {
    const [file] = target.files;
    target.value = ""; // so that choosing the same file again fires a change event
    if (!file) return;
    const ownNumber = ++runNumber;
    const showState = (text, isFault = false) => {
      $("#rows-state").textContent = text;
      $("#rows-state").className = isFault ? "note error" : "small muted";
    };
    $("#rows-result").hidden = true;
    showState("Reading…");
    try {
      if (file.size > MAX_BYTES) throw new Error(`The page reads files of up to ${MAX_BYTES / 1e6} MB. Use tapeline predict.`);
      const table = await read(file);
      const { lines, summary } = await predict(table, (done) => ownNumber === runNumber && showState(`${done.toLocaleString("en")} of ${counted(table.rows.length, "row")}…`));
      if (ownNumber !== runNumber) return; // another file was chosen in the meantime
      URL.revokeObjectURL($("#rows-result").href);
      $("#rows-result").href = URL.createObjectURL(new Blob(lines, { type: "text/csv" }));
      $("#rows-result").download = file.name.replace(/(\.[^.]*)?$/, "-predicted$1");
      $("#rows-result").hidden = false;
      showState(summary);
    } catch (error) {
      if (ownNumber === runNumber) showState(error.message, true);
    }
  });

  async function predict({ header, rows, delimiter, mark }, progress) {
    const columns = job.fields.map((field) => ({ ...field, index: header.indexOf(field.name) })).filter(({ index }) => index >= 0);
    checkNumbers(columns, rows);
    await checkNames(header, columns);
    const decimal = delimiter === "," ? "." : usualDecimal(rows.slice(0, BATCH_ROWS));
    const cell = (text) => (text.includes(delimiter) || /["\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const line = (cells) => `${cells.map(cell).join(delimiter)}\n`;
    const [lines, missing] = [[], new Set()];
    const body = { checkpoint: epoch() };
    let [unknown, response] = [0, null];
    for (let from = 0; from < rows.length; from += BATCH_ROWS) {
      const batch = rows.slice(from, from + BATCH_ROWS);
      body.rows = batch.map((row) => Object.fromEntries(columns.map(({ name, index }) => [name, row[index]])));
      response = await call(`${job.urls.self}/predict`, { method: "POST", body }).catch((error) => {
        throw faultIn(error, from);
      });
      const names = response.class_names;
      if (!from) lines.push(mark, line([...header, ...newNames(header, names)]));
      batch.forEach((row, index) => {
        const [winner, shares] = [response.classes[index], response.probabilities[index]];
        lines.push(line([...row, names[winner], ...[shares[winner], ...shares].map((probability) => String(Number(probability.toPrecision(6))).replace(".", decimal))]));
      });
      unknown += response.unknown_values?.length ?? 0;
      for (const name of Object.keys(response.absent_columns ?? {})) missing.add(name);
      progress(from + batch.length);
    }
    const sentences = [`${counted(rows.length, "row")} predicted with the checkpoint of epoch ${response.checkpoint}.`];
    if (unknown) sentences.push(`${counted(unknown, "value")} of unknown categories treated as missing.`);
    if (missing.size) sentences.push(`Columns that the file does not have, treated as missing: ${[...missing].join(", ")}.`);
    return { lines, summary: sentences.join(" ") };
  }

  // Other columns are copied, unless the service considers one a misspelling of a column of the model.
  async function checkNames(header, columns) {
    const names = job.fields.map(({ name }) => name);
    if (!columns.length) throw new Error(`The file has none of the columns of the model: ${names.join(", ")}. Its first line must have the names of the columns.`);
    const others = header.filter((name) => !names.includes(name));
    if (!others.length || columns.length === names.length) return;
    const row = Object.fromEntries([columns[0].name, ...others].map((name) => [name, ""]));
    await call(`${job.urls.self}/predict`, { method: "POST", body: { rows: [row], checkpoint: epoch() } }).catch((error) => {
      if (!error.problem?.errors) throw error;
      for (const { pointer, suggestion } of error.problem.errors) {
        if (names.includes(suggestion) && !header.includes(suggestion)) throw new Error(`Column ${columnIn(pointer)} is unknown; did you mean ${suggestion}? Rename or remove it.`);
      }
    });
  }

  // The service parses numbers as in training; where that is ambiguous, the rules of service/cli/notations.py apply
  // here too.
  function checkNumbers(columns, rows) {
    const [unambiguous, ambiguous] = [new Set(), new Map()];
    const refuse = (name, cell) => {
      throw new Error(`Column ${name}: ${cell} is not written as in the training data, and the page does not convert numbers. Use tapeline predict.`);
    };
    for (const { name, index, decimal = ".", group } of columns.filter(({ type }) => type === "number")) {
      for (const row of rows) {
        const { sign, isClear } = decimalOf(row[index]);
        if (!sign) continue;
        const read = group ? decimal : sign;
        if (!isClear) ambiguous.set(read, ambiguous.get(read) ?? [name, row[index]]);
        else if (sign !== decimal && (group || sign === ",")) refuse(name, row[index]);
        else unambiguous.add(sign);
      }
    }
    const [sign] = unambiguous;
    if (unambiguous.size !== 1 || job.fields.some(({ decimal }) => decimal === sign)) return;
    for (const [read, [name, cell]] of ambiguous) if (read !== sign) refuse(name, cell);
  }

  function usualDecimal(rows) {
    const counts = { ".": 0, ",": 0 };
    for (const { sign, isClear } of rows.flat().map(decimalOf)) if (isClear) counts[sign] += 1;
    const isComma = counts["."] === counts[","] ? job.fields.some(({ decimal }) => decimal === ",") : counts[","] > counts["."];
    return isComma ? "," : ".";
  }
}

// The names of the added columns; if any exists already, all get the same number as a suffix.
function newNames(header, classes) {
  const plain = ["prediction", "probability", ...classes.map((name) => `probability of ${name}`)];
  let names = plain;
  for (let count = 2; names.some((name) => header.includes(name)); count += 1) names = plain.map((name) => `${name} (${count})`);
  return names;
}

const columnIn = (pointer) => (pointer ?? "").split("/")[3]?.replaceAll("~1", "/").replaceAll("~0", "~") ?? "";

// Adds the row and the column of the first fault to an error.
function faultIn(error, from) {
  const [fault] = error.problem?.errors ?? [];
  const [, , index] = (fault?.pointer ?? "").split("/");
  if (index === undefined) return error;
  return new Error(`Row ${from + Number(index) + 1}: ${columnIn(fault.pointer)} ${fault.detail}`);
}
