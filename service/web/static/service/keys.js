// Creates, rotates and revokes API keys. A new key is shown once, in a dialog, and discarded when that closes.
import { $, announce } from "../common/dom.js";
import { call, onRestored } from "../common/api.js";
import { confirmed, onSubmit, secretDialog } from "../common/dialogs.js";
import { refresh } from "../common/live.js";

const refreshPage = () => refresh().catch(() => {}); // the action has succeeded even if the refresh fails

onRestored(refreshPage);

const showSecret = secretDialog();
const show = (key) => showSecret(key.key, `${key.name}: owner ${key.owner}, scope ${key.scope}.`);

onSubmit($("#create"), $("#create-error"), async ({ name, owner, scope, lifetime_days: days }) => {
  const body = {
    name: name.value,
    owner: owner.value,
    scope: scope.value,
    lifetime_days: days.value ? Number(days.value) : null,
  };
  show(await call("/keys", { method: "POST", body }));
  $("#create").reset();
  await refreshPage();
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
