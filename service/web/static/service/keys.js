// Creates, rotates and revokes API keys. A new key is shown once, in a dialog, and discarded when that closes.
import { $, announce } from "../common/dom.js";
import { call, onRestored } from "../common/api.js";
import { confirmed, copy, showFaults } from "../common/dialogs.js";
import { refresh } from "../common/live.js";

const refreshPage = () => refresh().catch(() => {}); // the action has succeeded even if the refresh fails

onRestored(refreshPage);

function show(key) {
  $("#made-key").textContent = key.key;
  $("#made-about").textContent = `${key.name}: owner ${key.owner}, scope ${key.scope}.`;
  $("#made").showModal();
}

$("#create").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { name, owner, scope, lifetime_days: days } = event.target.elements;
  const button = $("#create button");
  button.disabled = true;
  $("#create-error").hidden = true;
  try {
    const body = { name: name.value, owner: owner.value, scope: scope.value, lifetime_days: days.value ? Number(days.value) : null };
    show(await call("/keys", { method: "POST", body }));
    event.target.reset();
    await refreshPage();
  } catch (error) {
    showFaults($("#create-error"), error);
  } finally {
    button.disabled = false;
  }
});

$("#made-copy").addEventListener("click", () => copy($("#made-key").textContent, $("#made-key")));
$("#made").addEventListener("close", () => {
  $("#made-key").textContent = "";
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-rotate]");
  if (!button) return;
  const { rotate: id, name } = button.dataset;
  $("#rotate-title").textContent = `Rotate ${name}?`;
  if (!(await confirmed($("#rotate")))) return;
  try {
    const overlap_s = Number($("#rotate select").value);
    show(await call(`/keys/${id}/rotate`, { method: "POST", body: { overlap_s } }));
    await refreshPage();
  } catch (error) {
    announce(error.message, "error");
  }
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-revoke]");
  if (!button) return;
  const { revoke: id, name, own } = button.dataset;
  $("#revoke-title").textContent = `Revoke ${name}?`;
  $("#revoke-own").hidden = !own;
  if (!(await confirmed($("#revoke")))) return;
  try {
    await call(`/keys/${id}/revoke`, { method: "POST" });
    announce(`${name} revoked`, "good");
    if (own) location.assign("/ui/sign-in");
    else await refreshPage();
  } catch (error) {
    announce(error.message, "error");
  }
});
