// Uploads a dataset, and deletes one.
import { $, $$, announce } from "./dom.js";
import { call } from "./api.js";
import { confirmed, faultsOf } from "./dialogs.js";

const upload = $("#upload");
if (upload) {
  const showFormat = () => {
    for (const label of $$("[data-format]", upload)) {
      const isSelected = label.dataset.format === $("#format").value;
      label.hidden = !isSelected;
      $("input", label).disabled = !isSelected;
    }
  };
  $("#format").addEventListener("change", showFormat);
  showFormat();
  upload.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = new FormData();
    for (const field of upload.elements) {
      if (!field.name || field.disabled) continue;
      if (field.type === "file" && field.files.length) body.append(field.name, field.files[0]);
      else if (field.type !== "file" && field.value) body.append(field.name, field.value);
    }
    const button = $("button", upload);
    button.disabled = true;
    $("#upload-busy").hidden = false;
    $("#upload-error").hidden = true;
    try {
      location.assign((await call("/datasets", { method: "POST", body })).urls.self);
    } catch (error) {
      $("#upload-error").textContent = [error.problem?.title, faultsOf(error)].filter(Boolean).join(" ");
      $("#upload-error").hidden = false;
    } finally {
      button.disabled = false;
      $("#upload-busy").hidden = true;
    }
  });
}

$("#delete-dataset")?.addEventListener("click", async ({ target }) => {
  if (!(await confirmed($("#confirm")))) return;
  try {
    await call(target.dataset.address, { method: "DELETE" });
    location.assign("/datasets");
  } catch (error) {
    announce(error.message, "error");
  }
});
