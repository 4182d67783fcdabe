// Packs files into a tar (POSIX ustar) without reading them: the browser reads them while it sends.
const BLOCK = 512;
const encoder = new TextEncoder();

// files: [{ path, file }]; returns a Blob.
export function tar(files) {
  const parts = files.flatMap(({ path, file }, number) => [header(fitting(path, number), file), file, new Uint8Array(-file.size & (BLOCK - 1))]);
  return new Blob([...parts, new Uint8Array(2 * BLOCK)], { type: "application/x-tar" });
}

// A header holds 100 bytes of name and 155 of folders. Only a file's folders and suffix matter.
function fitting(path, number) {
  const at = path.lastIndexOf("/");
  const [folder, name] = [path.slice(0, Math.max(at, 0)), path.slice(at + 1)];
  const short = encoder.encode(name).length <= 100 ? name : `${number}${name.slice(name.lastIndexOf("."))}`;
  if (encoder.encode(folder).length > 155) throw new Error(`The path is too long: ${path}`);
  return [folder, short];
}

function header([folder, name], file) {
  const block = new Uint8Array(BLOCK);
  const put = (text, at) => block.set(encoder.encode(text), at);
  const octal = (value, digits) => value.toString(8).padStart(digits, "0");
  put(name, 0);
  put("0000644\0", 100);
  put("0000000\0", 108);
  put("0000000\0", 116);
  put(`${octal(file.size, 11)}\0`, 124);
  put(`${octal(Math.floor(file.lastModified / 1000), 11)}\0`, 136);
  put(" ".repeat(8), 148); // the checksum counts its own field as blanks
  put("0", 156);
  put("ustar\0" + "00", 257);
  put(folder, 345);
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(`${octal(sum, 6)}\0 `, 148);
  return block;
}
