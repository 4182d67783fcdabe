// Drains workers, and lets them claim jobs again.
import { $, announce } from "../common/dom.js";
import { call } from "../common/api.js";
import { confirmed } from "../common/dialogs.js";
import { refresh } from "../common/live.js";

async function change(worker, name, request, done) {
  try {
    await call(`/workers/${encodeURIComponent(worker)}/drain`, request);
    announce(`${name} ${done}`, "good");
    await refresh().catch(() => {}); // the action has succeeded even if the refresh fails
  } catch (error) {
    announce(error.message, "error");
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-drain], [data-undrain]");
  if (!button) return;
  const { drain, undrain, name } = button.dataset;
  if (undrain) return change(undrain, name, { method: "DELETE" }, "claims jobs again");
  $("#drain-title").textContent = `Drain ${name}?`;
  if (!(await confirmed($("#drain")))) return;
  await change(drain, name, { method: "POST", body: { running: $("#drain select").value } }, "is draining");
});
