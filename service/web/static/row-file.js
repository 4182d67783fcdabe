// Classifies the rows of a CSV file and adds the predictions, in the format of `tapeline predict`.
// Unlike the command, it does not convert numbers: those that are not written as in the training data are refused.
import { $, counted } from "./dom.js";
import { call } from "./api.js";
import { read, decimalOf } from "./delimited.js";

const ROWS_AT_A_TIME = 500;
const MAX_BYTES = 20e6;

// epoch(): of the checkpoint to use.
export function wireFile(job, epoch) {
  let turn = 0;

  $("#rows-file").addEventListener("change", async ({ target }) => {
    const [file] = target.files;
    target.value = ""; // the same file may be chosen again
    if (!file) return;
    const mine = ++turn;
    const say = (text, isFault = false) => {
      $("#rows-state").textContent = text;
      $("#rows-state").className = isFault ? "note error" : "small muted";
    };
    $("#rows-result").hidden = true;
    say("Reading…");
    try {
      if (file.size > MAX_BYTES) throw new Error(`The page reads files of up to ${MAX_BYTES / 1e6} MB. Use tapeline predict.`);
      const table = await read(file);
      const { lines, told } = await predict(table, (done) => mine === turn && say(`${done.toLocaleString("en")} of ${counted(table.rows.length, "row")}…`));
      if (mine !== turn) return; // another file was chosen meanwhile
      URL.revokeObjectURL($("#rows-result").href);
      $("#rows-result").href = URL.createObjectURL(new Blob(lines, { type: "text/csv" }));
      $("#rows-result").download = file.name.replace(/(\.[^.]*)?$/, "-predicted$1");
      $("#rows-result").hidden = false;
      say(told);
    } catch (error) {
      if (mine === turn) say(error.message, true);
    }
  });

  async function predict({ header, rows, delimiter, mark }, progress) {
    const places = job.fields.map((field) => ({ ...field, place: header.indexOf(field.name) })).filter(({ place }) => place >= 0);
    checkNumbers(places, rows);
    await checkNames(header, places);
    const decimal = delimiter === "," ? "." : usualDecimal(rows.slice(0, ROWS_AT_A_TIME));
    const cell = (text) => (text.includes(delimiter) || /["\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const line = (cells) => `${cells.map(cell).join(delimiter)}\n`;
    const [lines, missing] = [[], new Set()];
    const body = { checkpoint: epoch() };
    let [unknown, answer] = [0, null];
    for (let from = 0; from < rows.length; from += ROWS_AT_A_TIME) {
      const some = rows.slice(from, from + ROWS_AT_A_TIME);
      body.rows = some.map((row) => Object.fromEntries(places.map(({ name, place }) => [name, row[place]])));
      answer = await call(`${job.urls.self}/predict`, { method: "POST", body }).catch((error) => {
        throw faultIn(error, from);
      });
      const names = answer.class_names;
      if (!from) lines.push(mark, line([...header, ...newNames(header, names)]));
      some.forEach((row, place) => {
        const [winner, shares] = [answer.classes[place], answer.probabilities[place]];
        lines.push(line([...row, names[winner], ...[shares[winner], ...shares].map((probability) => String(Number(probability.toPrecision(6))).replace(".", decimal))]));
      });
      unknown += answer.unknown_values?.length ?? 0;
      for (const name of Object.keys(answer.absent_columns ?? {})) missing.add(name);
      progress(from + some.length);
    }
    const told = [`${counted(rows.length, "row")} predicted with the checkpoint of epoch ${answer.checkpoint}.`];
    if (unknown) told.push(`${counted(unknown, "value")} of unknown categories treated as missing.`);
    if (missing.size) told.push(`Columns that the file does not have, treated as missing: ${[...missing].join(", ")}.`);
    return { lines, told: told.join(" ") };
  }

  // Other columns are only copied, unless the service takes one for a misspelt column of the model.
  async function checkNames(header, places) {
    const names = job.fields.map(({ name }) => name);
    if (!places.length) throw new Error(`The file has none of the columns of the model: ${names.join(", ")}. Its first line must have the names of the columns.`);
    const others = header.filter((name) => !names.includes(name));
    if (!others.length || places.length === names.length) return;
    const row = Object.fromEntries([places[0].name, ...others].map((name) => [name, ""]));
    await call(`${job.urls.self}/predict`, { method: "POST", body: { rows: [row], checkpoint: epoch() } }).catch((error) => {
      if (!error.problem?.errors) throw error;
      for (const { pointer, suggestion } of error.problem.errors) {
        if (names.includes(suggestion) && !header.includes(suggestion)) throw new Error(`Column ${columnIn(pointer)} is unknown; did you mean ${suggestion}? Rename or remove it.`);
      }
    });
  }

  // The service reads numbers as in training; the same rules as in service/cli/notations.py say where this is in doubt.
  function checkNumbers(places, rows) {
    const [clear, doubtful] = [new Set(), new Map()];
    const refuse = (name, cell) => {
      throw new Error(`Column ${name}: ${cell} is not written as in the training data, and the page does not convert numbers. Use tapeline predict.`);
    };
    for (const { name, place, decimal = ".", group } of places.filter(({ type }) => type === "number")) {
      for (const row of rows) {
        const { sign, isClear } = decimalOf(row[place]);
        if (!sign) continue;
        const read = group ? decimal : sign;
        if (!isClear) doubtful.set(read, doubtful.get(read) ?? [name, row[place]]);
        else if (sign !== decimal && (group || sign === ",")) refuse(name, row[place]);
        else clear.add(sign);
      }
    }
    const [sign] = clear;
    if (clear.size !== 1 || job.fields.some(({ decimal }) => decimal === sign)) return;
    for (const [read, [name, cell]] of doubtful) if (read !== sign) refuse(name, cell);
  }

  function usualDecimal(rows) {
    const counts = { ".": 0, ",": 0 };
    for (const { sign, isClear } of rows.flat().map(decimalOf)) if (isClear) counts[sign] += 1;
    const isComma = counts["."] === counts[","] ? job.fields.some(({ decimal }) => decimal === ",") : counts[","] > counts["."];
    return isComma ? "," : ".";
  }
}

// The names of the added columns, all with the same number where one of them would be there twice.
function newNames(header, classes) {
  const plain = ["prediction", "probability", ...classes.map((name) => `probability of ${name}`)];
  let names = plain;
  for (let count = 2; names.some((name) => header.includes(name)); count += 1) names = plain.map((name) => `${name} (${count})`);
  return names;
}

const columnIn = (pointer) => (pointer ?? "").split("/")[3]?.replaceAll("~1", "/").replaceAll("~0", "~") ?? "";

// The error with the row and the column of the first fault.
function faultIn(error, from) {
  const [fault] = error.problem?.errors ?? [];
  const [, , index] = (fault?.pointer ?? "").split("/");
  if (index === undefined) return error;
  return new Error(`Row ${from + Number(index) + 1}: ${columnIn(fault.pointer)} ${fault.detail}`);
}
