// Uploads a dataset, and deletes one.
import { $, $$, announce, counted, h } from "./dom.js";
import { call } from "./api.js";
import { confirmed, faultsOf } from "./dialogs.js";
import { latest } from "./latest.js";
import { tar } from "./tar.js";

const IMAGE = /\.(png|jpe?g|jpe|webp|bmp|gif)$/i;
const TABLE = /\.(csv|tsv|txt)(\.gz)?$/i;
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
  // Derives the name from the folder's, without characters that names must not have.
  const propose = (name) => {
    const field = $("[name=name]", upload);
    field.value ||= name.replace(/\.(tar\.gz|tgz|tar|zip|npz|(csv|tsv|txt)(\.gz)?)$/i, "").replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "").slice(0, 64);
  };
  const takeFolder = (files) => {
    chosen = files.filter(({ path }) => IMAGE.test(path) && !HIDDEN.test(path)).sort((one, other) => (one.path < other.path ? -1 : 1));
    const folders = new Set(chosen.map(({ path }) => path.slice(0, path.lastIndexOf("/"))));
    $("#folder-chosen").textContent = chosen.length ? `${counted(chosen.length, "image")} in ${counted(folders.size, "folder")}` : "This folder contains no PNG, JPEG, WebP, BMP or GIF files.";
    if (chosen.length) propose(chosen[0].path.split("/")[0]);
  };

  $("#format").addEventListener("change", showFormat);
  showFormat();
  $("#folder").addEventListener("change", ({ target }) => takeFolder([...target.files].map((file) => ({ path: file.webkitRelativePath, file }))));
  $("[name=archive]", upload).addEventListener("change", ({ target }) => target.files[0] && propose(target.files[0].name));

  $("[name=table]", upload).addEventListener("change", ({ target }) => {
    if (!target.files[0]) return;
    propose(target.files[0].name);
    readHeader(target.files[0]);
  });
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
      const format = TABLE.test(event.dataTransfer.files[0].name) ? "table" : "archive";
      choose(format);
      $(`[name=${format}]`, upload).files = event.dataTransfer.files;
      if (format === "table") readHeader(event.dataTransfer.files[0]);
      propose(event.dataTransfer.files[0].name);
    }
  });

  upload.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = $("button", upload);
    button.disabled = true;
    $("#upload-busy").hidden = false;
    $("#upload-error").hidden = true;
    const id = crypto.getRandomValues(new Uint32Array(4)).join("-");
    showProgress(null);
    const ask = latest(async () => {
      const progress = await call(`/uploads/${id}`).catch(() => null); // 404 before it has begun and after it has ended
      if (progress && button.disabled) showProgress(progress);
    });
    const watch = setInterval(ask, 700);
    try {
      location.assign((await call("/datasets", { method: "POST", body: body(), headers: { "Upload-Id": id } })).urls.page);
    } catch (error) {
      $("#upload-error").textContent = error.problem ? asFormSays([error.problem.title, faultsOf(error)].filter(Boolean).join(" ")) : error.message;
      $("#upload-error").hidden = false;
      $("#upload-error").scrollIntoView({ block: "nearest" });
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
