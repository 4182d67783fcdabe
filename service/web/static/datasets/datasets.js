// Uploads and deletes datasets.
import { $, $$, announce, capital, counted } from "../common/dom.js";
import { call } from "../common/api.js";
import { fieldOfOne, nameFrom } from "./data-files.js";
import { confirmed, faultsOf } from "../common/dialogs.js";
import { latest } from "../common/latest.js";
import { classesOf, imagesOf, reasonToScale, USUAL_SIZE } from "./image-folder.js";
import { TablePreview } from "./table-preview.js";
import { tar } from "./tar.js";

const HELP = {
  folder: "Choose a folder that has a folder of images for each class, or drop it, an archive or a CSV file here.",
  archive:
    "Choose a zip or tar archive that has a folder of images for each class, or an NPZ archive of arrays, or drop it " +
    "here.",
  table: "Choose a CSV or TSV file with the names of the columns in its first line, or drop it here.",
  idx: "Choose a file of images and a file of labels, as of MNIST.",
};
const MAX_NAMED_CLASSES = 5;
// How sentences begin about a parameter of the API that has no label of this name.
const SUBJECTS = {
  archive: "The archive",
  table: "The table",
  images: "The file of images",
  labels: "The file of labels",
  validation_images: "The file of validation images",
  validation_labels: "The file of validation labels",
  types: "The type of a column:",
};
const labelOf = (name) => $(`label [name="${name}"]`)?.closest("label").firstChild.textContent.trim();
const subjectOf = (name) => SUBJECTS[name] ?? (labelOf(name) && `“${labelOf(name)}”`);

const upload = $("#upload");
if (upload) {
  const card = upload.closest(".card");
  const preview = new TablePreview(upload, (error) => faultText(error));
  let chosen = []; // the images of a folder: { path, file }
  let folderSummary = ""; // its number of images and its classes

  const showFormat = () => {
    for (const label of $$("[data-format]", card)) {
      const isSelected = label.dataset.format.split(" ").includes($("#format").value);
      label.hidden = !isSelected;
      for (const field of $$("input, select", label)) field.disabled = !isSelected;
    }
    const format = $("#format").value;
    $("#folder-chosen").textContent = (format === "folder" && folderSummary) || HELP[format];
  };
  const choose = (format) => {
    $("#format").value = format;
    showFormat();
  };
  // Suggests a name, unless the user has typed one.
  let suggestedName = "";
  const suggestName = (name) => {
    const field = $("[name=name]", upload);
    if (!field.value || field.value === suggestedName) field.value = suggestedName = nameFrom(name);
  };
  const showError = (text) => {
    $("#upload-error").textContent = text;
    $("#upload-error").hidden = !text;
    if (text) $("#upload-error").scrollIntoView({ block: "nearest" });
  };
  const sizeField = $("[name=size]", upload);
  const fitField = $("[name=fit]", upload);
  let suggestedSize = "";
  let reason = ""; // why the images must be scaled
  let summarize = () => {};
  for (const field of [sizeField, fitField]) field.addEventListener("change", () => summarize());
  let inspection = Promise.resolve(); // resolves once the sizes of the chosen images are known
  const takeFolder = (files) => (inspection = inspect(files));
  const inspect = async (files) => {
    const images = (chosen = imagesOf(files));
    const { names, outside } = classesOf(images.map(({ path }) => path));
    const listedNames = names.length <= MAX_NAMED_CLASSES ? `: ${names.join(", ")}` : "";
    summarize = () => {
      const fitted = fitField.value === "pad"
        ? `scaled into ${sizeField.value} pixels, with black borders`
        : `scaled to cover ${sizeField.value} pixels and cropped, which cuts off two sides`;
      const scaling = reason && sizeField.value &&
        `${reason}: they are ${fitted}. 64 keeps more detail and takes about four times as long.`;
      folderSummary = [
        `${counted(images.length, "image")} in ${names.length} class${names.length === 1 ? "" : "es"}${listedNames}.`,
        outside ? `${counted(outside, "image")} outside of class folders.` : "",
        scaling,
      ].filter(Boolean).join(" ");
      showFormat();
    };
    reason = "";
    if (images.length) summarize();
    else folderSummary = "This folder contains no PNG, JPEG, WebP, BMP or GIF files.";
    showFormat();
    if (images.length) suggestName(images[0].path.split("/")[0]);
    showError("");
    if (sizeField.value === suggestedSize) sizeField.value = suggestedSize = ""; // suggested for the previous folder
    reason = await reasonToScale(images);
    if (chosen !== images || !reason) return;
    if (!sizeField.value) {
      sizeField.value = suggestedSize = USUAL_SIZE;
      if (sizeField === document.activeElement) sizeField.select(); // so that typing replaces it
    }
    summarize();
  };

  $("#format").addEventListener("change", showFormat);
  showFormat();
  $("#folder").addEventListener(
    "change",
    ({ target }) => takeFolder([...target.files].map((file) => ({ path: file.webkitRelativePath, file }))),
  );
  // Assigns a chosen or dropped file to the field that matches its name, or shows why none does.
  const takeFiles = (files, from = null) => {
    try {
      const field = fieldOfOne(files.map(({ name }) => name));
      choose(field);
      const input = $(`[name=${field}]`, upload);
      if (input !== from) {
        const transfer = new DataTransfer();
        transfer.items.add(files[0]);
        input.files = transfer.files;
      }
      if (field === "table") preview.show(files[0]);
      suggestName(files[0].name);
      showError("");
    } catch (error) {
      if (from) from.value = "";
      showError(error.message);
    }
  };
  for (const name of ["archive", "table"]) {
    $(`[name=${name}]`, upload).addEventListener(
      "change",
      ({ target }) => target.files.length && takeFiles([...target.files], target),
    );
  }
  card.addEventListener("dragover", (event) => {
    event.preventDefault();
    card.classList.add("dropping");
  });
  card.addEventListener("dragleave", () => card.classList.remove("dropping"));
  card.addEventListener("drop", async (event) => {
    event.preventDefault();
    card.classList.remove("dropping");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    if (entries.some((entry) => entry.isDirectory)) {
      choose("folder");
      takeFolder((await Promise.all(entries.map(filesOf))).flat());
    } else if (event.dataTransfer.files.length) {
      takeFiles([...event.dataTransfer.files]);
    }
  });

  let isUploading = false;
  let cancel = () => {};
  addEventListener("beforeunload", (event) => isUploading && event.preventDefault()); // the browser asks
  $("#upload-cancel").addEventListener("click", () => cancel());
  upload.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = $("button", upload);
    const id = crypto.getRandomValues(new Uint32Array(4)).join("-");
    const controller = new AbortController();
    const setUploading = (value) => {
      isUploading = button.disabled = value;
      $("#upload-busy").hidden = !value;
    };
    let state = null;
    cancel = async () => {
      const isRefused = await call(`/uploads/${id}`, { method: "DELETE" }).then(
        () => false,
        ({ problem }) => problem?.code === "upload_stored",
      );
      if (!isRefused && state !== "reading") controller.abort(); // otherwise the service's answer tells
    };
    setUploading(true);
    showError("");
    showProgress(null);
    const poll = latest(async () => {
      const progress = await call(`/uploads/${id}`).catch(() => null); // errors are reported by the upload itself
      if (!progress || progress.state === "absent" || !isUploading) return;
      state = progress.state;
      showProgress(progress);
    });
    const timer = setInterval(poll, 700);
    try {
      await inspection;
      const { urls } = await call("/datasets", {
        method: "POST",
        body: body(),
        headers: { "Upload-Id": id },
        signal: controller.signal,
      });
      setUploading(false);
      location.assign(urls.page);
    } catch (error) {
      if (error.problem?.code === "upload_cancelled") announce("The upload was cancelled. Nothing was stored.");
      else if (error.name === "AbortError") announce("The upload was cancelled.");
      else showError(error.problem ? [error.problem.title, faultText(error)].filter(Boolean).join(" ") : error.message);
    } finally {
      clearInterval(timer);
      setUploading(false);
    }
  });

  // The API's faults, worded in terms of the chosen files and the form's fields.
  function faultText(error) {
    const faults = error.problem.errors ?? [];
    const subject = (name) => (name === "archive" && $("#format").value === "folder" ? "The folder" : subjectOf(name));
    const isPredicate = /^(has|is|holds|contains|leaves|must|cannot|was|are|should|does|needs)\b/;
    const sentence = ({ parameter, detail }) => {
      const about = subject(parameter);
      if (!about) return null;
      if (isPredicate.test(detail)) return `${about} ${detail}`;
      return about.startsWith("“") ? `${about}: ${detail}` : capital(detail);
    };
    const sentences = faults.map(sentence);
    const text = faults.length && sentences.every(Boolean)
      ? sentences.map((item) => (/[.!?]$/.test(item) ? item : `${item}.`)).join(" ")
      : faultsOf(error);
    return text
      .replace(" with on_bad=skip", ": choose “leave them out” under “Unreadable images”")
      .replace("channels=1", "choose “grey” under “Channels”")
      .replace("Ignore columns with types", "Choose “ignore” as the type of columns")
      .replace("give a size, such as 32", "set “Size in pixels”, such as to 32")
      .replace("give a smaller size", "set a smaller “Size in pixels”")
      .replace("in the archive", $("#format").value === "folder" ? "in the folder" : "in the archive");
  }

  function showProgress(progress) {
    const activity = progress?.state === "reading" ? "Reading" : "Uploading";
    $("#upload-doing").textContent = progress?.fraction
      ? `${activity}: ${Math.floor(100 * progress.fraction)}%`
      : `${activity}…`;
    if (progress?.fraction) $("#upload-progress").value = progress.fraction;
    else $("#upload-progress").removeAttribute("value");
  }

  function body() {
    const form = new FormData();
    for (const field of upload.elements) {
      if (!field.name || field.disabled) continue;
      if (field.type === "file" && field.files.length) form.append(field.name, field.files[0]);
      else if (field.type !== "file" && field.value) form.append(field.name, field.value);
    }
    if ($("#format").value === "folder") {
      if (!chosen.length) throw new Error("Choose a folder with a folder of images for each class.");
      form.append("archive", tar(chosen), "images.tar");
    }
    return form;
  }
}

// All files under a dropped entry; a directory returns its entries in batches.
async function filesOf(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ path: entry.fullPath.replace(/^\//, ""), file }];
  }
  const [reader, files] = [entry.createReader(), []];
  for (;;) {
    const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!batch.length) return files;
    files.push(...(await Promise.all(batch.map(filesOf))).flat());
  }
}

$("#delete-dataset")?.addEventListener("click", async ({ target }) => {
  if (!(await confirmed($("#confirm")))) return;
  try {
    await call(target.dataset.address, { method: "DELETE" });
    location.assign("/ui/datasets");
  } catch (error) {
    announce(error.message, "error");
  }
});

$("#publish")?.addEventListener("click", async ({ target }) => {
  target.disabled = true;
  try {
    await call(target.dataset.address, { method: "PATCH", body: { shared: Boolean(target.dataset.shared) } });
    location.reload();
  } catch (error) {
    target.disabled = false;
    announce(error.message, "error");
  }
});
