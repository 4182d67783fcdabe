// A drawing pad with live predictions. For a classifier of photos or colour images, an opened file is sent unchanged,
// so that the prediction is the same as on the command line; the pad then only shows the part of it that the network
// sees.
import { $, announce } from "../common/dom.js";
import { call } from "../common/api.js";
import { barsOf, wireCheckpoints } from "./parts.js";
import { latest, requestSequence } from "../common/latest.js";

// Side of the submitted image in pixels; the service fits the drawing into the frame of the dataset's images.
const SIDE = 56;
const SENT_TYPES = ["image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif"];
const job = JSON.parse($("#job").textContent);
const pad = $("#pad");

if (pad) {
  const pen = pad.getContext("2d", { willReadFrequently: true });
  const scaled = new OffscreenCanvas(SIDE, SIDE).getContext("2d", { willReadFrequently: true });
  const showBars = barsOf($("#bars"));
  let strokeAt = 0;
  let timedStrokeAt = 0; // a stroke is timed once: later predictions are of another checkpoint
  let isDrawn = false;
  let isOpened = false; // the pad shows a file without drawn strokes
  let file = null; // the opened file in base64; null once the user draws on it
  // A network sees an entire drawing, but of a photo only the centre, cropped to the network's aspect ratio, or all of
  // it with borders.
  const [rowsSeen, columnsSeen] = job.crops ? job.shape : [1, 1];
  const [heightShare, widthShare] = [Math.min(1, rowsSeen / columnsSeen), Math.min(1, columnsSeen / rowsSeen)];
  pad.width = Math.round(pad.width * widthShare);
  pad.height = Math.round(pad.height * heightShare);
  const inputView = $("#looked");
  [inputView.width, inputView.height] = [pad.width, pad.height];
  let lastVerdict = null;
  let interruptedVerdict = null; // the verdict shown before a file is read, to restore if that fails
  const nextDrawing = requestSequence(); // a new drawing begins when the pad is cleared
  let isCurrent = nextDrawing();

  const epoch = wireCheckpoints(job, () => ask());
  const predict = latest(async () => {
    if (!isDrawn) return;
    const isSameDrawing = isCurrent;
    const [startedAt, inputKind] = [strokeAt, isOpened ? "opened file" : "stroke"];
    const images = [file ?? pixels()];
    let response;
    try {
      response = await call(`${job.urls.self}/predict`, {
        method: "POST",
        body: { images, fit: true, explain: $("#explain").checked, checkpoint: epoch() },
      });
    } catch (error) {
      announce(error.message, "error");
      if (isSameDrawing() && lastVerdict === null) $("#verdict").textContent = "No prediction";
      return;
    }
    if (!isSameDrawing()) return; // the pad was cleared
    show(response);
    if (startedAt !== timedStrokeAt) {
      timedStrokeAt = startedAt;
      const elapsed_ms = Math.round(performance.now() - startedAt);
      $("#latency").textContent = `${elapsed_ms} ms from ${inputKind} to prediction`;
      $("#latency").dataset.ms = elapsed_ms;
    }
  });

  // The verdict is marked as busy until it reflects the last stroke.
  async function ask() {
    $("#verdict").setAttribute("aria-busy", "true");
    try {
      await predict();
    } finally {
      $("#verdict").removeAttribute("aria-busy");
    }
  }

  function pixels() {
    const [width, height] = [Math.round(SIDE * widthShare), Math.round(SIDE * heightShare)];
    scaled.imageSmoothingQuality = "high";
    scaled.drawImage(pad, 0, 0, width, height);
    const { data } = scaled.getImageData(0, 0, width, height);
    const level = (offset) => Math.round((data[offset] / 255) * 100) / 100;
    const pixel = job.colour ? (offset) => [level(offset), level(offset + 1), level(offset + 2)] : level;
    return Array.from(
      { length: height },
      (_, row) => Array.from({ length: width }, (_, column) => pixel(4 * (row * width + column))),
    );
  }

  function show({ probabilities: [shares], classes: [winner], class_names: names, seen, saliency }) {
    showBars(shares, winner);
    const text = `${names[winner]}, ${(100 * shares[winner]).toFixed(0)}%`;
    if (text !== lastVerdict) $("#verdict").textContent = text;
    lastVerdict = text;
    $("#verdict").dataset.answer = names[winner];
    if (seen) overlay(seen[0], saliency[0]);
  }

  // Replaces each value by the weighted mean of its neighbours.
  function blur(rows) {
    const mean = (row) => row.map((value, at) => ((row[at - 1] ?? value) + 2 * value + (row[at + 1] ?? value)) / 4);
    const across = rows.map(mean);
    rows.forEach((row, y) =>
      row.forEach((
        _,
        x,
      ) => (row[x] = ((across[y - 1] ?? across[y])[x] + 2 * across[y][x] + (across[y + 1] ?? across[y])[x]) / 4))
    );
  }

  // The network's input; blue and orange mark where more brightness would support or oppose the prediction.
  function overlay(seen, saliency) {
    const [height, width] = [seen.length, seen[0].length];
    const image = new ImageData(width, height);
    const effects = saliency.map((row) => row.map((pixel) => (job.colour ? pixel[0] + pixel[1] + pixel[2] : pixel)));
    if (job.crops) { for (let pass = 0; pass < 2; pass += 1) blur(effects); // of a photo, single pixels alternate
     }
    const largest = Math.max(...effects.flat().map(Math.abs)) || 1;
    for (let row = 0; row < height; row += 1) {
      for (let column = 0; column < width; column += 1) {
        const background = paleColour(seen[row][column]);
        const effect = effects[row][column] / largest;
        const tint = effect > 0 ? [60, 160, 255] : [255, 140, 40];
        const weight = Math.min(0.85, Math.abs(effect) ** 0.8);
        image.data.set([
          ...tint.map((value, channel) => 255 * background[channel] * (1 - weight) * 0.8 + value * weight),
          255,
        ], 4 * (row * width + column));
      }
    }
    const frame = new OffscreenCanvas(width, height);
    frame.getContext("2d").putImageData(image, 0, 0);
    const context = inputView.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(frame, 0, 0, inputView.width, inputView.height);
    if (job.crops) reveal("looked", true);
  }

  // Halves the saturation, so that the tint is visible on any colour.
  function paleColour(pixel) {
    if (!job.colour) return [pixel, pixel, pixel];
    const grey = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2];
    return pixel.map((light) => (light + grey) / 2);
  }

  // Shows a canvas, or a sentence in its place while it is empty.
  function reveal(id, isVisible) {
    $(`#${id}`).hidden = !isVisible;
    $(id === "pad" ? "#no-photo" : "#no-looked").hidden = isVisible;
  }

  function clear() {
    if (job.crops) { for (const id of ["pad", "looked"]) reveal(id, false); }
    isCurrent = nextDrawing();
    isDrawn = false;
    file = null;
    lastVerdict = null;
    interruptedVerdict = null;
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, pad.width, pad.height);
    const context = inputView.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, inputView.width, inputView.height);
    $("#verdict").textContent = job.crops ? "Open a photo" : "Draw something";
    $("#latency").textContent = "";
    showBars();
  }

  let lastPoint = null;
  const canvasPoint = (event) => {
    const box = pad.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * pad.width,
      ((event.clientY - box.top) / box.height) * pad.height,
    ];
  };
  function drawLine(event) {
    // A fast pen passes several points between two events: the coalesced events have them all.
    for (const sample of event.getCoalescedEvents?.() ?? [event]) {
      const to = canvasPoint(sample);
      pen.strokeStyle = "#fff";
      pen.lineCap = pen.lineJoin = "round";
      pen.lineWidth = Number($("#pen").value) * (event.pointerType === "pen" ? 0.6 + 0.8 * sample.pressure : 1);
      pen.beginPath();
      pen.moveTo(...lastPoint);
      pen.lineTo(...to);
      pen.stroke();
      lastPoint = to;
    }
    isDrawn = true;
    isOpened = false;
    file = null;
    strokeAt = performance.now();
    ask();
  }
  pad.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || job.crops) return;
    pad.setPointerCapture(event.pointerId);
    lastPoint = canvasPoint(event);
    drawLine(event);
    event.preventDefault();
  });
  pad.addEventListener("pointermove", (event) => lastPoint && drawLine(event));
  for (const type of ["pointerup", "pointercancel"]) pad.addEventListener(type, () => (lastPoint = null));
  $("#clear").addEventListener("click", clear);
  $("#explain").addEventListener("change", ask);

  const nextOpening = requestSequence();
  async function open(chosen) {
    const isNewest = nextOpening();
    const [strokeAtBefore, isSameDrawing] = [strokeAt, isCurrent];
    const image = await createImageBitmap(chosen).catch(() => null);
    if (!isNewest()) return;
    if (image && job.crops) {
      interruptedVerdict ??= [$("#verdict").textContent, lastVerdict];
      $("#verdict").textContent = "Computing…";
      lastVerdict = null;
    }
    const encodedFile = image && job.crops ? await encodeFile(chosen, image) : null;
    if (!isNewest()) return;
    if (!image) {
      announce("This browser cannot read that file as an image.", "error");
      if (interruptedVerdict && $("#verdict").textContent === "Computing…") {
        [$("#verdict").textContent, lastVerdict] = interruptedVerdict;
      }
      interruptedVerdict = null;
      return;
    }
    if (strokeAt !== strokeAtBefore || !isSameDrawing()) {
      announce(
        "The image was not opened, because you changed the drawing while it was loading. " +
          "Open it again to replace the drawing.",
      );
      return;
    }
    clear();
    const scale = (job.crops && !job.pads ? Math.max : Math.min)(pad.width / image.width, pad.height / image.height);
    const [width, height] = [image.width * scale, image.height * scale];
    pen.drawImage(image, (pad.width - width) / 2, (pad.height - height) / 2, width, height);
    if (job.crops) file = encodedFile;
    if (!job.crops) normalizeColours();
    else if (!job.colour) removeColour();
    if (job.crops) reveal("pad", true);
    $("#verdict").textContent = "Computing…";
    isDrawn = true;
    strokeAt = performance.now();
    isOpened = true;
    ask();
  }

  // Encodes a file in base64, scaled down if it is large.
  async function encodeFile(chosen, image) {
    const [width, height] = [image.width, image.height];
    const { sent: limits } = job; // the command-line client has the same limits
    const isWithinLimits = chosen.size <= limits.bytes && width * height <= limits.pixels &&
      (chosen.type !== "image/png" || Math.max(width, height) <= limits.png_side);
    let blob = chosen;
    if (!isWithinLimits || !SENT_TYPES.includes(chosen.type)) {
      const scale = Math.min(1, limits.side / Math.max(width, height));
      const canvas = new OffscreenCanvas(
        Math.max(1, Math.round(width * scale)),
        Math.max(1, Math.round(height * scale)),
      );
      const context = canvas.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.drawImage(image, 0, 0, canvas.width, canvas.height);
      blob = await canvas.convertToBlob({ type: "image/png" });
    }
    const bytes = new Uint8Array(await blob.arrayBuffer());
    let text = "";
    for (let offset = 0; offset < bytes.length; offset += 0x8000) {
      text += String.fromCharCode(...bytes.subarray(offset, offset + 0x8000));
    }
    return btoa(text);
  }

  // Shows the photo in grey, as the network sees it.
  function removeColour() {
    const image = pen.getImageData(0, 0, pad.width, pad.height);
    const { data } = image;
    for (let offset = 0; offset < data.length; offset += 4) {
      data.fill(0.299 * data[offset] + 0.587 * data[offset + 1] + 0.114 * data[offset + 2], offset, offset + 3);
    }
    pen.putImageData(image, 0, 0);
  }

  // Converts to grey. Digit classifiers expect light on dark: dark ink on paper, detected by its light border, is
  // inverted.
  function normalizeColours() {
    const image = pen.getImageData(0, 0, pad.width, pad.height);
    const { data, width, height } = image;
    const grey = (offset) => (data[offset] + data[offset + 1] + data[offset + 2]) / 3;
    let border = 0;
    for (let column = 0; column < width; column += 1) {
      border += grey(4 * column) + grey(4 * ((height - 1) * width + column));
    }
    const isInverted = border / (2 * width) > 127;
    for (let offset = 0; offset < data.length; offset += 4) {
      data.fill(isInverted ? 255 - grey(offset) : grey(offset), offset, offset + 3);
    }
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
  call(`${job.urls.self}/predict`, { method: "POST", body: { images: [pixels()], checkpoint: epoch(), explain: true } })
    .catch(() => {});
}
