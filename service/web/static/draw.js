// A drawing pad with live predictions. A classifier of photos or colour images gets
// an opened file unchanged, so that it predicts the same as from the command line; the pad then only shows the part that
// the network sees.
import { $, announce } from "./dom.js";
import { call } from "./api.js";
import { barsOf } from "./bars.js";
import { wireCheckpoints } from "./checkpoints.js";
import { latest, turns } from "./latest.js";

const SIDE = 56; // side of the sent image in pixels; the service fits the drawing into the dataset's frame
const SENT_TYPES = ["image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif"];
const job = JSON.parse($("#job").textContent);
const pad = $("#pad");

if (pad) {
  const pen = pad.getContext("2d", { willReadFrequently: true });
  const small = new OffscreenCanvas(SIDE, SIDE).getContext("2d", { willReadFrequently: true });
  const showBars = barsOf($("#bars"));
  let strokeAt = 0;
  let drawn = false;
  let isOpened = false; // the pad shows a file without drawn strokes
  let file = null; // in base64; null once the user draws on it
  // Networks see the whole of a drawing, but only the centre of a photo, cropped to their aspect ratio.
  const [rowsSeen, columnsSeen] = job.crops ? job.shape : [1, 1];
  const [tall, wide] = [Math.min(1, rowsSeen / columnsSeen), Math.min(1, columnsSeen / rowsSeen)];
  pad.width = Math.round(pad.width * wide);
  pad.height = Math.round(pad.height * tall);
  const looked = $("#looked");
  [looked.width, looked.height] = [pad.width, pad.height];
  let last = null;
  let before = null; // the prediction before the file that is being read, to restore if reading is interrupted
  const turn = turns(); // one for each drawing, which begins when the pad is cleared
  let isCurrent = turn();

  const epoch = wireCheckpoints(job, () => ask());
  const predict = latest(async () => {
    if (!drawn) return;
    const isSame = isCurrent;
    const [since, what] = [strokeAt, isOpened ? "opened file" : "stroke"];
    const images = [file ?? pixels()];
    let answer;
    try {
      answer = await call(`${job.urls.self}/predict`, { method: "POST", body: { images, fit: true, explain: $("#explain").checked, checkpoint: epoch() } });
    } catch (error) {
      announce(error.message, "error");
      if (isSame() && last === null) $("#verdict").textContent = "No prediction";
      return;
    }
    if (!isSame()) return; // the pad was cleared
    show(answer);
    if (since) {
      const took = Math.round(performance.now() - since);
      $("#latency").textContent = `${took} ms from ${what} to prediction`;
      $("#latency").dataset.ms = took;
    }
  });

  // The verdict is busy until it is the one on the last stroke.
  async function ask() {
    $("#verdict").setAttribute("aria-busy", "true");
    try {
      await predict();
    } finally {
      $("#verdict").removeAttribute("aria-busy");
    }
  }

  function pixels() {
    const [width, height] = [Math.round(SIDE * wide), Math.round(SIDE * tall)];
    small.imageSmoothingQuality = "high";
    small.drawImage(pad, 0, 0, width, height);
    const { data } = small.getImageData(0, 0, width, height);
    const level = (at) => Math.round((data[at] / 255) * 100) / 100;
    const pixel = job.colour ? (at) => [level(at), level(at + 1), level(at + 2)] : level;
    return Array.from({ length: height }, (_, row) => Array.from({ length: width }, (_, column) => pixel(4 * (row * width + column))));
  }

  function show({ probabilities: [shares], classes: [winner], class_names: names, seen, saliency }) {
    showBars(shares, winner);
    const text = `${names[winner]}, ${(100 * shares[winner]).toFixed(0)}%`;
    if (text !== last) $("#verdict").textContent = text;
    last = text;
    $("#verdict").dataset.answer = names[winner];
    if (seen) overlay(seen[0], saliency[0]);
  }

  // The network's input; blue and orange mark where more brightness would speak for or against the prediction.
  function overlay(seen, saliency) {
    const [height, width] = [seen.length, seen[0].length];
    const image = new ImageData(width, height);
    const pulls = saliency.map((row) => row.map((pixel) => (job.colour ? pixel[0] + pixel[1] + pixel[2] : pixel)));
    const most = Math.max(...pulls.flat().map(Math.abs)) || 1;
    for (let row = 0; row < height; row += 1) {
      for (let column = 0; column < width; column += 1) {
        const lights = pale(seen[row][column]);
        const pull = pulls[row][column] / most;
        const tint = pull > 0 ? [60, 160, 255] : [255, 140, 40];
        const weight = Math.min(0.85, Math.abs(pull) ** 0.8);
        image.data.set([...tint.map((value, channel) => 255 * lights[channel] * (1 - weight) * 0.8 + value * weight), 255], 4 * (row * width + column));
      }
    }
    const frame = new OffscreenCanvas(width, height);
    frame.getContext("2d").putImageData(image, 0, 0);
    const context = looked.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(frame, 0, 0, looked.width, looked.height);
    if (job.crops) reveal("looked", true);
  }

  // At half intensity, so that the tint is visible on any colour.
  function pale(pixel) {
    if (!job.colour) return [pixel, pixel, pixel];
    const grey = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2];
    return pixel.map((light) => (light + grey) / 2);
  }

  // A sentence in place of the empty square.
  function reveal(id, isThere) {
    $(`#${id}`).hidden = !isThere;
    $(id === "pad" ? "#no-photo" : "#no-looked").hidden = isThere;
  }

  function clear() {
    if (job.crops) for (const id of ["pad", "looked"]) reveal(id, false);
    isCurrent = turn();
    drawn = false;
    file = null;
    last = null;
    before = null;
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, pad.width, pad.height);
    const context = looked.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, looked.width, looked.height);
    $("#verdict").textContent = job.crops ? "Open a photo" : "Draw something";
    $("#latency").textContent = "";
    showBars();
  }

  let from = null;
  const place = (event) => {
    const box = pad.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * pad.width, ((event.clientY - box.top) / box.height) * pad.height];
  };
  function line(event) {
    // A fast pen passes several points between two events.
    for (const part of event.getCoalescedEvents?.() ?? [event]) {
      const to = place(part);
      pen.strokeStyle = "#fff";
      pen.lineCap = pen.lineJoin = "round";
      pen.lineWidth = Number($("#pen").value) * (event.pointerType === "pen" ? 0.6 + 0.8 * part.pressure : 1);
      pen.beginPath();
      pen.moveTo(...from);
      pen.lineTo(...to);
      pen.stroke();
      from = to;
    }
    drawn = true;
    isOpened = false;
    file = null;
    strokeAt = performance.now();
    ask();
  }
  pad.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || job.crops) return;
    pad.setPointerCapture(event.pointerId);
    from = place(event);
    line(event);
    event.preventDefault();
  });
  pad.addEventListener("pointermove", (event) => from && line(event));
  for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => (from = null));
  $("#clear").addEventListener("click", clear);
  $("#explain").addEventListener("change", ask);

  const opening = turns();
  async function open(chosen) {
    const isNewest = opening();
    const [began, isSame] = [strokeAt, isCurrent];
    const image = await createImageBitmap(chosen).catch(() => null);
    if (!isNewest()) return;
    if (image && job.crops) {
      before ??= [$("#verdict").textContent, last];
      $("#verdict").textContent = "Computing…";
      last = null;
    }
    const sent = image && job.crops ? await encoded(chosen, image) : null;
    if (!isNewest()) return;
    if (!image) {
      announce("This browser cannot read that file as an image.", "error");
      if (before && $("#verdict").textContent === "Computing…") [$("#verdict").textContent, last] = before;
      before = null;
      return;
    }
    if (strokeAt !== began || !isSame()) {
      announce("The image was not opened, because you changed the drawing while it was loading. Open it again to replace the drawing.");
      return;
    }
    clear();
    const scale = (job.crops ? Math.max : Math.min)(pad.width / image.width, pad.height / image.height);
    const [width, height] = [image.width * scale, image.height * scale];
    pen.drawImage(image, (pad.width - width) / 2, (pad.height - height) / 2, width, height);
    if (job.crops) file = sent;
    if (!job.crops) darken();
    else if (!job.colour) withoutColour();
    if (job.crops) reveal("pad", true);
    $("#verdict").textContent = "Computing…";
    drawn = true;
    strokeAt = performance.now();
    isOpened = true;
    ask();
  }

  // A file in base64, scaled down if it is large.
  async function encoded(chosen, image) {
    const [width, height] = [image.width, image.height];
    const { sent } = job; // the command-line client has the same limits
    const fits = chosen.size <= sent.bytes && width * height <= sent.pixels && (chosen.type !== "image/png" || Math.max(width, height) <= sent.png_side);
    let blob = chosen;
    if (!fits || !SENT_TYPES.includes(chosen.type)) {
      const scale = Math.min(1, sent.side / Math.max(width, height));
      const canvas = new OffscreenCanvas(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
      const context = canvas.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.drawImage(image, 0, 0, canvas.width, canvas.height);
      blob = await canvas.convertToBlob({ type: "image/png" });
    }
    const bytes = new Uint8Array(await blob.arrayBuffer());
    let text = "";
    for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
    return btoa(text);
  }

  // The photo in grey, as the network sees it.
  function withoutColour() {
    const image = pen.getImageData(0, 0, pad.width, pad.height);
    const { data } = image;
    for (let at = 0; at < data.length; at += 4) data.fill(0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2], at, at + 3);
    pen.putImageData(image, 0, 0);
  }

  // Digit classifiers expect light on dark: dark ink on paper, detected by a light border, is inverted.
  function darken() {
    const image = pen.getImageData(0, 0, pad.width, pad.height);
    const { data, width, height } = image;
    const grey = (at) => (data[at] + data[at + 1] + data[at + 2]) / 3;
    let border = 0;
    for (let column = 0; column < width; column += 1) border += grey(4 * column) + grey(4 * ((height - 1) * width + column));
    const turned = border / (2 * width) > 127;
    for (let at = 0; at < data.length; at += 4) data.fill(turned ? 255 - grey(at) : grey(at), at, at + 3);
    pen.putImageData(image, 0, 0);
  }

  $("#file").addEventListener("change", ({ target }) => {
    const [chosen] = target.files;
    if (chosen) open(chosen);
    target.value = ""; // so that choosing the same file again fires a change event
  });
  addEventListener("paste", (event) => event.clipboardData.files[0] && open(event.clipboardData.files[0]));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
  });
  clear();
  // The first prediction loads the network: request it before the user starts to draw.
  call(`${job.urls.self}/predict`, { method: "POST", body: { images: [pixels()], checkpoint: epoch(), explain: true } }).catch(() => {});
}
