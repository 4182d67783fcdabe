// Classifies a file to upload by its name: the form field that accepts it, or the reason why none does.
import { $ } from "../common/dom.js";

// A page of one dataset has no form.
const { tables, archives, refused } = JSON.parse($("#file-kinds")?.textContent ?? "{}");
const IDX = /(idx\d*|ubyte)(\.gz)?$/i;

const suffixOf = (name, suffixes) => suffixes.find((suffix) => name.toLowerCase().endsWith(suffix));

// Returns "table" or "archive"; otherwise throws an error that says what the file is and what to do.
function fieldOf(name) {
  for (const [suffixes, problem] of refused) if (suffixOf(name, suffixes)) throw new Error(`${name} is ${problem}.`);
  if (suffixOf(name, tables)) return "table";
  if (IDX.test(name)) {
    throw new Error(
      `${name} is an IDX file. Choose the format “IDX files”, with a file of images and a file of labels.`,
    );
  }
  if (suffixOf(name, [...archives, ".gz"])) return "archive";
  throw new Error(
    `${name} is not a file that can be uploaded: these are CSV and TSV files (a text file with a table: rename it to ` +
      ".csv), zip, tar, tar.gz and NPZ archives, and IDX files.",
  );
}

// The field for a dropped file; throws if there are several.
export function fieldOfOne(names) {
  const fields = names.map(fieldOf);
  if (names.length === 1) return fields[0];
  const [first, second] = names;
  if (fields.every((field) => field === "table")) {
    throw new Error(
      `${first} and ${second} are tables, and a dataset is one. Join them into one file, and name the column that ` +
        "says train, validation or test under “Split column”.",
    );
  }
  throw new Error(`Drop one file at a time, not ${first} and ${second}.`);
}

const SUFFIXES = [...(tables ?? []), ...(archives ?? []), ".gz"].sort((a, b) => b.length - a.length);
const LETTERS = { ä: "ae", ö: "oe", ü: "ue", Ä: "Ae", Ö: "Oe", Ü: "Ue", ß: "ss", æ: "ae", Æ: "Ae", ø: "o", Ø: "O" };

// Derives a valid dataset name from the name of a file or folder, as dataset_name in tapeline/inputs/uploads.py.
export function nameFrom(file) {
  const suffix = suffixOf(file, SUFFIXES) ?? "";
  const stem = file.slice(0, file.length - suffix.length).normalize("NFC").replace(
    /[äöüÄÖÜßæÆøØ]/g,
    (letter) => LETTERS[letter],
  );
  const ascii = stem.normalize("NFKD").replace(/[^\x00-\x7f]/g, "");
  return ascii.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[-._]+|[-._]+$/g, "").slice(0, 64) || "data";
}
