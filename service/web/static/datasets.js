// Uploads a dataset, and deletes one.
import { $, $$, announce, counted, h } from "./dom.js";
import { call } from "./api.js";
import { fieldOfOne, nameFrom } from "./data-files.js";
import { confirmed, faultsOf } from "./dialogs.js";
import { latest } from "./latest.js";
import { tar } from "./tar.js";

const IMAGE = /\.(png|jpe?g|jpe|webp|bmp|gif)$/i;
const HIDDEN = /(^|\/)(\.|__MACOSX)/;

const upload = $("#upload");
if (upload) {
  let chosen = []; // { path, file } of a folder

  const showFormat = () => {
    for (const label of $$("[data-format]", upload)) {
      const isSelected = label.dataset.format.split(" ").includes($("#format").value);
      label.hidden = !isSelected;
      $("input, select", label).disabled = !isSelected;
    }
  };
  const choose = (format) => {
    $("#format").value = format;
    showFormat();
  };
  // Proposes a name, unless somebody has typed one.
  let proposed = "";
  const propose = (name) => {
    const field = $("[name=name]", upload);
    if (!field.value || field.value === proposed) field.value = proposed = nameFrom(name);
  };
  const showError = (text) => {
    $("#upload-error").textContent = text;
    $("#upload-error").hidden = !text;
    if (text) $("#upload-error").scrollIntoView({ block: "nearest" });
  };
  const takeFolder = (files) => {
    chosen = files.filter(({ path }) => IMAGE.test(path) && !HIDDEN.test(path)).sort((one, other) => (one.path < other.path ? -1 : 1));
    const folders = new Set(chosen.map(({ path }) => path.slice(0, path.lastIndexOf("/"))));
    $("#folder-chosen").textContent = chosen.length ? `${counted(chosen.length, "image")} in ${counted(folders.size, "folder")}` : "This folder contains no PNG, JPEG, WebP, BMP or GIF files.";
    if (chosen.length) propose(chosen[0].path.split("/")[0]);
    showError("");
  };

  $("#format").addEventListener("change", showFormat);
  showFormat();
  $("#folder").addEventListener("change", ({ target }) => takeFolder([...target.files].map((file) => ({ path: file.webkitRelativePath, file }))));
  // Gives a chosen or dropped file to the field that its name tells; where none takes it, says why.
  const takeFiles = (files, from = null) => {
    try {
      const field = fieldOfOne(files.map(({ name }) => name));
      choose(field);
      const input = $(`[name=${field}]`, upload);
      if (input !== from) {
        const carried = new DataTransfer();
        carried.items.add(files[0]);
        input.files = carried.files;
      }
      if (field === "table") readHeader(files[0]);
      propose(files[0].name);
      showError("");
    } catch (error) {
      if (from) from.value = "";
      showError(error.message);
    }
  };
  for (const name of ["archive", "table"]) {
    $(`[name=${name}]`, upload).addEventListener("change", ({ target }) => target.files.length && takeFiles([...target.files], target));
  }
  // Offers the columns as targets, read from the first line of an uncompressed file.
  async function readHeader(file) {
    const [line] = (await file.slice(0, 65536).text()).split(/\r?\n/);
    const delimiter = ["\t", ";", "|", ","].find((one) => line.includes(one)) ?? ",";
    const isText = !/[\u0000-\u0008]/.test(line);
    $("#table-columns").replaceChildren(...(isText ? line.split(delimiter) : []).slice(0, 200).map((name) => h("option", { value: name.trim().replace(/^"|"$/g, "") })));
  }

  const card = upload.closest(".card");
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

  upload.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = $("button", upload);
    button.disabled = true;
    $("#upload-busy").hidden = false;
    showError("");
    const id = crypto.getRandomValues(new Uint32Array(4)).join("-");
    showProgress(null);
    const ask = latest(async () => {
      const progress = await call(`/uploads/${id}`).catch(() => null); // the upload itself reports errors
      if (progress && progress.state !== "absent" && button.disabled) showProgress(progress);
    });
    const watch = setInterval(ask, 700);
    try {
      location.assign((await call("/datasets", { method: "POST", body: body(), headers: { "Upload-Id": id } })).urls.page);
    } catch (error) {
      showError(error.problem ? asFormSays([error.problem.title, faultsOf(error)].filter(Boolean).join(" ")) : error.message);
    } finally {
      clearInterval(watch);
      button.disabled = false;
      $("#upload-busy").hidden = true;
    }
  });

  // The API's advice, reworded for the form.
  function asFormSays(text) {
    return text.replace(" with on_bad=skip", ": choose “leave them out” under “Unreadable images”").replace("channels=1", "choose “grey” under “Channels”").replace("Ignore columns with types", "Ignore columns under “Column types”");
  }

  function showProgress(progress) {
    const doing = progress?.state === "reading" ? "Reading" : "Uploading";
    $("#upload-doing").textContent = progress?.fraction ? `${doing}: ${Math.floor(100 * progress.fraction)}%` : `${doing}…`;
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
  const [reader, found] = [entry.createReader(), []];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found;
    found.push(...(await Promise.all(some.map(filesOf))).flat());
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
