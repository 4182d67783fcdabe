// Packs files into a tar (POSIX ustar) without reading them: the browser reads them while it uploads.
const BLOCK = 512;
const encoder = new TextEncoder();

// files: [{ path, file }]; returns a Blob.
export function tar(files) {
  const parts = files.flatMap((
    { path, file },
    number,
  ) => [header(fittingPath(path, number), file), file, new Uint8Array(-file.size & (BLOCK - 1))]);
  return new Blob([...parts, new Uint8Array(2 * BLOCK)], { type: "application/x-tar" });
}

// Shortens a path to the limits of a header: 100 bytes for the name, 155 for the folders. The import uses only the
// folders and the suffix.
function fittingPath(path, number) {
  const slash = path.lastIndexOf("/");
  const [folder, name] = [path.slice(0, Math.max(slash, 0)), path.slice(slash + 1)];
  const short = encoder.encode(name).length <= 100 ? name : `${number}${name.slice(name.lastIndexOf("."))}`;
  if (encoder.encode(folder).length > 155) throw new Error(`The path is too long: ${path}`);
  return [folder, short];
}

function header([folder, name], file) {
  const block = new Uint8Array(BLOCK);
  const put = (text, offset) => block.set(encoder.encode(text), offset);
  const octal = (value, digits) => value.toString(8).padStart(digits, "0");
  put(name, 0);
  put("0000644\0", 100);
  put("0000000\0", 108);
  put("0000000\0", 116);
  put(`${octal(file.size, 11)}\0`, 124);
  put(`${octal(Math.floor(file.lastModified / 1000), 11)}\0`, 136);
  put(" ".repeat(8), 148); // for the checksum, its own field counts as spaces
  put("0", 156);
  put("ustar\0" + "00", 257);
  put(folder, 345);
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(`${octal(sum, 6)}\0 `, 148);
  return block;
}
