// The rows of a CSV file, and what a classifier takes them for: the file with the predictions, as `tapeline predict` writes it.
import { $, counted } from "./dom.js";
import { call } from "./api.js";

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
    const decimal = delimiter !== "," && rows.some((row) => row.some((cell) => /^-?\d+,\d+$/.test(cell))) ? "," : ".";
    const cell = (text) => (text.includes(delimiter) || /["\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const line = (cells) => `${cells.map(cell).join(delimiter)}\n`;
    const [lines, missing] = [[], new Set()];
    const body = { checkpoint: epoch() };
    let [unknown, answer] = [0, null];
    for (let from = 0; from < rows.length; from += ROWS_AT_A_TIME) {
      const some = rows.slice(from, from + ROWS_AT_A_TIME);
      body.rows = some.map((row) => Object.fromEntries(header.map((name, place) => [name, row[place]])));
      answer = await call(`${job.urls.self}/predict`, { method: "POST", body }).catch((error) => {
        throw faultIn(error, from);
      });
      const names = answer.class_names;
      if (!from) lines.push(mark, line([...header, "prediction", "probability", ...names.map((name) => `probability of ${name}`)]));
      some.forEach((row, place) => {
        const [winner, shares] = [answer.classes[place], answer.probabilities[place]];
        lines.push(line([...row, names[winner], ...[shares[winner], ...shares].map((share) => String(Number(share.toPrecision(6))).replace(".", decimal))]));
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
}

// The error with the row and the column of the first fault.
function faultIn(error, from) {
  const [fault] = error.problem?.errors ?? [];
  const [, , index, column = ""] = (fault?.pointer ?? "").split("/");
  if (index === undefined) return error;
  return new Error(`Row ${from + Number(index) + 1}: ${column.replaceAll("~1", "/").replaceAll("~0", "~")} ${fault.detail}`);
}

async function read(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const { text, mark } = decoded(bytes);
  const delimiter = ["\t", ";", "|", ","].find((one) => text.split(/\r?\n/, 1)[0].includes(one)) ?? ",";
  const [header = [], ...rows] = split(text, delimiter);
  const names = header.map((name) => name.trim());
  if (new Set(names).size < names.length) throw new Error("Two columns have the same name.");
  const filled = rows.filter((row) => row.length > 1 || row[0] || names.length === 1);
  if (!filled.length) throw new Error("The file has no rows below its first line, the names of the columns.");
  const wrong = filled.findIndex((row) => row.length !== names.length);
  if (wrong >= 0) throw new Error(`Row ${wrong + 1} has ${counted(filled[wrong].length, "field")} instead of ${names.length}.`);
  return { header: names, rows: filled, delimiter, mark };
}

// Spreadsheets recognize UTF-8 by a mark only; it is written if the file was not UTF-8 without one.
function decoded(bytes) {
  const mark = "\ufeff";
  if ((bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff)) return { text: new TextDecoder(bytes[0] === 0xff ? "utf-16le" : "utf-16be").decode(bytes), mark };
  try {
    return { text: new TextDecoder("utf-8", { fatal: true }).decode(bytes), mark: bytes[0] === 0xef && bytes[1] === 0xbb ? mark : "" };
  } catch {
    return { text: new TextDecoder("windows-1252").decode(bytes), mark };
  }
}

function split(text, delimiter) {
  const one = `\\${delimiter}`;
  const cell = new RegExp(`(?:"([^"]*(?:""[^"]*)*)"|([^${one}\\r\\n]*))(${one}|\\r?\\n|\\r|$)`, "y");
  const rows = [];
  for (let row = []; cell.lastIndex < text.length || row.length; ) {
    const [, quoted, plain, end] = cell.exec(text);
    row.push(quoted?.replaceAll('""', '"') ?? plain);
    if (end === delimiter) continue;
    rows.push(row);
    row = [];
  }
  return rows;
}
