// A folder of images, as the import reads it: its classes, and whether its images have one size.
const IMAGE = /\.(png|jpe?g|jpe|webp|bmp|gif)$/i;
const HIDDEN = /(^|\/)(\.|__MACOSX)/;
const PARTS = /^(train(ing)?|val(id|idation)?|test(ing)?)$/i;

const MAX_MEASURED_IMAGES = 40; // an image must be decoded to learn its size: a sample, spread over the folder
const MAX_SIDE = 512; // as in service/datasets/importer.py
export const USUAL_SIZE = "32";

// files: [{ path, file }]; returns the images, sorted by path.
export const imagesOf = (files) =>
  files.filter(({ path }) => IMAGE.test(path) && !HIDDEN.test(path)).sort((a, b) => (a.path < b.path ? -1 : 1));

// The names of the classes, and the number of images outside of class folders; the same as _folders in
// class_folders.py.
export function classesOf(paths) {
  let folders = paths.map((path) => path.split("/").slice(0, -1));
  const inside = () => (folders = folders.filter((parts) => parts.length));
  for (
    inside();
    new Set(folders.map(([first]) => first)).size === 1 && folders.some((parts) => parts.length > 1);
    inside()
  ) folders = folders.map((parts) => parts.slice(1));
  if (folders.every(([first]) => PARTS.test(first)) && folders.some((parts) => parts.length > 1)) {
    folders = folders.map((parts) => parts.slice(1));
    inside();
  }
  return { names: [...new Set(folders.map(([first]) => first))].sort(), outside: paths.length - folders.length };
}

// The sizes of a sample of the images, as { width, height }. Images that the browser cannot decode are left to the
// import.
async function sizesOf(images) {
  const step = Math.max(1, images.length / MAX_MEASURED_IMAGES);
  const sample = Array.from(
    { length: Math.min(MAX_MEASURED_IMAGES, images.length) },
    (_, index) => images[Math.floor(index * step)],
  );
  const sizes = [];
  for (const { file } of sample) {
    const bitmap = await createImageBitmap(file).catch(() => null);
    if (!bitmap) continue;
    sizes.push({ width: bitmap.width, height: bitmap.height });
    bitmap.close();
  }
  return sizes;
}

// Why the images must be scaled, judging by a sample of them; empty if they need not be.
export async function reasonToScale(images) {
  const sizes = await sizesOf(images);
  const distinct = [...new Set(sizes.map(({ width, height }) => `${width} × ${height}`))];
  if (distinct.length > 1) return `These images have different sizes, such as ${distinct[0]} and ${distinct[1]}`;
  return sizes.some(({ width, height }) => Math.max(width, height) > MAX_SIDE)
    ? `These images have ${distinct[0]} pixels, more than ${MAX_SIDE} on a side`
    : "";
}
