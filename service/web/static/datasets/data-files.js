// Classifies a file to upload by its name: the form field that accepts it, or the reason why none does. The command line has
// the same list: service/cli/data_files.py.
const TABLE = /\.(csv|tsv|txt)(\.gz)?$/i;
const ARCHIVE = /\.(npz|zip|tar|tgz|gz)$/i;
const IDX = /(idx\d*|ubyte)(\.gz)?$/i;
const SUFFIXES = /\.(tar\.gz|tgz|tar|zip|npz|(csv|tsv|txt)(\.gz)?)$/i;
const CONVERT = "Convert the table to CSV.";
const ARRAY = "Save NPZ with the arrays images and labels.";
const KINDS = [
  [/\.(xlsx|xlsm|xlsb|xls|ods|numbers)$/i, "a spreadsheet", "Save the sheet as CSV."],
  [/\.(parquet|pq)$/i, "a Parquet file", CONVERT],
  [/\.(feather|arrow)$/i, "an Arrow file", CONVERT],
  [/\.(json|jsonl|ndjson)$/i, "a JSON file", CONVERT],
  [/\.(sqlite|sqlite3|db)$/i, "a database", CONVERT],
  [/\.(7z|rar|tar\.xz|txz|tar\.bz2|tbz2|tar\.zst)$/i, "an unsupported archive", "Choose the folder itself, or pack it as zip or tar.gz."],
  [/\.(xz|bz2|zst)$/i, "compressed in an unsupported way", "Unpack it first."],
  [/\.npy$/i, "a single array", ARRAY],
  [/\.(h5|hdf5)$/i, "an HDF5 file", ARRAY],
  [/\.(png|jpe?g|jpe|webp|bmp|gif|heic|avif|tiff?)$/i, "a single image", "Choose a folder that has a folder of images for each class."],
];

// Returns "table" or "archive"; otherwise throws an error that says what the file is and what to do.
function fieldOf(name) {
  for (const [pattern, description, remedy] of KINDS) if (pattern.test(name)) throw new Error(`${name} is ${description}. ${remedy}`);
  if (TABLE.test(name)) return "table";
  if (IDX.test(name)) throw new Error(`${name} is an IDX file. Choose the format “IDX files”, with a file of images and a file of labels.`);
  if (ARCHIVE.test(name)) return "archive";
  throw new Error(`${name} is not a file that can be uploaded: these are CSV and TSV files (a text file with a table: rename it to .csv), zip, tar, tar.gz and NPZ archives, and IDX files.`);
}

// The field for a dropped file; throws if there are several.
export function fieldOfOne(names) {
  const fields = names.map(fieldOf);
  if (names.length === 1) return fields[0];
  const [first, second] = names;
  if (fields.every((field) => field === "table")) throw new Error(`${first} and ${second} are tables, and a dataset is one. Join them into one file, and name the column that says train, validation or test under “Split column”.`);
  throw new Error(`Drop one file at a time, not ${first} and ${second}.`);
}

// Derives a valid dataset name from the name of a file or folder.
export const nameFrom = (file) => file.replace(SUFFIXES, "").replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "").slice(0, 64);
