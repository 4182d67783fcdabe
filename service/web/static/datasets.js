// Uploads a dataset, and deletes one.
import { $, $$, announce } from "./dom.js";
import { call } from "./api.js";

const upload = $("#upload");
if (upload) {
  const choose = () => {
    for (const label of $$("[data-format]", upload)) {
      const chosen = label.dataset.format === $("#format").value;
      label.hidden = !chosen;
      $("input", label).disabled = !chosen;
    }
  };
  $("#format").addEventListener("change", choose);
  choose();
  upload.addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = new FormData();
    for (const field of upload.elements) {
      if (!field.name || field.disabled) continue;
      if (field.type === "file" && field.files.length) form.append(field.name, field.files[0]);
      else if (field.type !== "file" && field.value) form.append(field.name, field.value);
    }
    const button = $("button", upload);
    button.disabled = true;
    $("#upload-busy").hidden = false;
    $("#upload-error").hidden = true;
    try {
      const answer = await fetch("/datasets", { method: "POST", body: form, headers: { Accept: "application/json" } });
      const told = await answer.json();
      if (answer.ok) {
        location.assign(told.urls.self);
        return;
      }
      const faults = (told.errors ?? []).map((fault) => `${fault.parameter ?? fault.pointer}: ${fault.detail}`);
      $("#upload-error").textContent = `${told.title} ${faults.join(" · ") || told.detail}`;
      $("#upload-error").hidden = false;
    } catch {
      $("#upload-error").textContent = "The service does not answer. Is it still running?";
      $("#upload-error").hidden = false;
    }
    button.disabled = false;
    $("#upload-busy").hidden = true;
  });
}

$("#delete-dataset")?.addEventListener("click", ({ target }) => {
  const dialog = $("#confirm");
  dialog.returnValue = "no";
  dialog.showModal();
  dialog.addEventListener(
    "close",
    async () => {
      if (dialog.returnValue !== "yes") return;
      try {
        await call(target.dataset.address, { method: "DELETE" });
        location.assign("/datasets");
      } catch (error) {
        announce(error.message, "error");
      }
    },
    { once: true },
  );
});
