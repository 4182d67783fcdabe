// Changes the settings of an owner in a dialog; an empty field sets the default again.
import { $, $$, announce } from "../common/dom.js";
import { call, onRestored } from "../common/api.js";
import { onSubmit } from "../common/dialogs.js";
import { refresh } from "../common/live.js";

const REFRESH_MS = 3000;
const dialog = $("#change");
const fields = $$("input", dialog);
let owner = null;
const refreshPage = () => refresh().catch(() => {});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-owner]");
  if (!button) return;
  owner = button.dataset.owner;
  const settings = { display_name: button.dataset.display || null, ...JSON.parse(button.dataset.settings) };
  const defaults = { display_name: owner, ...JSON.parse(button.dataset.defaults) };
  for (const field of fields) {
    field.value = field.defaultValue = settings[field.name] ?? "";
    field.placeholder = defaults[field.name];
  }
  $("#change-title").textContent = `Settings of ${button.dataset.name}`;
  $("#change-error").hidden = true;
  dialog.showModal();
});

onSubmit($("form", dialog), $("#change-error"), async () => {
  const changed = fields.filter((field) => field.value.trim() !== field.defaultValue);
  const valueOf = (
    field,
  ) => (field.value.trim() === "" ? null : field.type === "number" ? Number(field.value) : field.value.trim());
  if (changed.length) {
    await call(`/owners/${encodeURIComponent(owner)}`, {
      method: "PATCH",
      body: Object.fromEntries(changed.map((field) => [field.name, valueOf(field)])),
    });
  }
  dialog.close();
  if (changed.length) announce("Saved", "good");
  await refreshPage();
});
$("#change-cancel").addEventListener("click", () => dialog.close());

setInterval(() => document.hidden || refreshPage(), REFRESH_MS);
onRestored(refreshPage);
