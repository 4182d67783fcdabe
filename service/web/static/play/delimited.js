// Reads CSV files as service/datasets/formats/delimited.py does: delimiter, encoding, header and rows.
import { counted } from "../common/dom.js";

const SAMPLED_ROWS = 100;
const SAMPLED_CHARACTERS = 2 ** 16;

export async function read(file) {
  const { text, mark } = decode(new Uint8Array(await file.arrayBuffer()));
  const separatorLine = /^"?sep=([,\t;|])"?[ \t]*(?:\r?\n|\r|$)/i.exec(text); // for Excel
  const table = text.slice(separatorLine?.[0].length ?? 0);
  const delimiter = separatorLine?.[1] ?? delimiterOf(table);
  const [header = [], ...rows] = split(table, delimiter);
  const names = header.map((name, index) => name.trim() || `column_${index + 1}`);
  if (new Set(names).size < names.length) throw new Error("Two columns have the same name.");
  if (!rows.length) throw new Error("The file has no rows below its first line, the names of the columns.");
  for (const row of rows) if (!row.slice(names.length).some((cell) => cell.trim())) row.splice(names.length); // empty cells from trailing delimiters
  const invalidRow = rows.findIndex((row) => row.length !== names.length);
  if (invalidRow >= 0) throw new Error(`Row ${invalidRow + 1} has ${counted(rows[invalidRow].length, "field")} instead of ${names.length}.`);
  return { header: names, rows, delimiter, mark };
}

// The decimal sign of a number, and whether it is unambiguous: 1.234 is either a decimal or has a thousands separator.
export function decimalOf(text) {
  if (!/^\s*[+-]?[$€£¥]?[\d.,'’\s]*\d[\d.,'’\s]*[%$€£¥]?\s*$/.test(text)) return {};
  const [, head, sign, tail] = /^(.*)([.,])(.*)$/.exec(text.replace(/[^\d.,]/g, "")) ?? [];
  if (!sign) return {};
  if (head.includes(sign)) return /^\d{1,3}([.,]\d{3})+$/.test(head + sign + tail) ? { sign: sign === "." ? "," : ".", isClear: true } : {};
  return { sign, isClear: tail.length !== 3 || !/^[1-9]\d{0,2}$/.test(head) };
}

// The delimiter with which most rows are as wide as the header; on a tie, the one with the widest header. Delimiters inside
// quotation marks do not count.
export function delimiterOf(text) {
  const sample = text.slice(0, SAMPLED_CHARACTERS);
  const unquoted = sample.replace(/((?:^|[,\t;|\r\n]) *)"[^"]*(?:""[^"]*)*(?:"(?= *(?:[,\t;|\r\n]|$))|$)/g, "$1x");
  const lines = unquoted.split(/\r?\n|\r/);
  if (text.length > SAMPLED_CHARACTERS && lines.length > 1) lines.pop(); // the sample cuts it off
  const rows = lines.filter((line) => /[^ ]/.test(line)).slice(0, SAMPLED_ROWS);
  let [best, most, widest] = [",", 0, 1];
  for (const candidate of [",", "\t", ";", "|"]) {
    const widths = rows.map((row) => row.split(candidate).length);
    const count = widths.filter((width) => width === widths[0]).length;
    if (widths[0] > 1 && (count > most || (count === most && widths[0] > widest))) [best, most, widest] = [candidate, count, widths[0]];
  }
  return best;
}

// Spreadsheets recognize UTF-8 only by its byte order mark, so the output gets one unless the file was UTF-8 without it.
function decode(bytes) {
  const mark = "\ufeff";
  if ((bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff)) return { text: new TextDecoder(bytes[0] === 0xff ? "utf-16le" : "utf-16be").decode(bytes), mark };
  try {
    return { text: new TextDecoder("utf-8", { fatal: true }).decode(bytes), mark: bytes[0] === 0xef && bytes[1] === 0xbb ? mark : "" };
  } catch {
    return { text: new TextDecoder("windows-1252").decode(bytes), mark };
  }
}

// Empty lines are skipped.
function split(text, delimiter) {
  const escaped = `\\${delimiter}`;
  const cell = new RegExp(`(?: *"([^"]*(?:""[^"]*)*)"| *((?:[^ "${escaped}\\r\\n][^${escaped}\\r\\n]*)?))(${escaped}|\\r?\\n|\\r|$)`, "y");
  const rows = [];
  for (let row = []; cell.lastIndex < text.length || row.length; ) {
    const match = cell.exec(text);
    if (!match) throw new Error(`${rows.length ? `Row ${rows.length}` : "The first line"} has characters after a quotation mark.`);
    const [, quoted, plain, terminator] = match;
    row.push(quoted?.replaceAll('""', '"') ?? plain);
    if (terminator === delimiter) continue;
    if (row.length > 1 || row[0]) rows.push(row);
    row = [];
  }
  return rows;
}
