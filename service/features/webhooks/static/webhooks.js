// Creates webhooks, and tests, rotates, disables and deletes one. A secret is shown once, in a dialog.
import { $, $$, announce } from "../common/dom.js";
import { call, onRestored } from "../common/api.js";
import { confirmed, onSubmit, secretDialog } from "../common/dialogs.js";
import { refresh } from "../common/live.js";

const REFRESH_MS = 5000;
const refreshPage = () => refresh().catch(() => {}); // the action has succeeded even if the refresh fails
let isDeleted = false; // the page of a webhook that is gone cannot be read again
const address = () => `/webhooks/${$("#webhook").dataset.webhook}`;

onRestored(refreshPage);
setInterval(() => {
  if (!document.hidden && !isDeleted && !$("dialog[open]")) refreshPage();
}, REFRESH_MS);

const showSecret = secretDialog();
const show = (webhook) => showSecret(webhook.secret, `Public key, for ed25519 signatures: ${webhook.public_key}`);

if ($("#create")) {
  onSubmit($("#create"), $("#create-error"), async ({ url, description }) => {
    const events = $$("[name=events]:checked", $("#create")).map((box) => box.value);
    const body = { url: url.value.trim(), description: description.value.trim() || null, events };
    show(await call("/webhooks", { method: "POST", body }));
    $("#create").reset();
    await refreshPage();
  });
}

async function act(button, work) {
  button.disabled = true;
  try {
    await work();
    if (!isDeleted) await refreshPage();
  } catch (error) {
    announce(error.message, "error");
  } finally {
    button.disabled = false;
  }
}

// The scheduler sends within a second: look again soon after.
function lookSoon() {
  for (const wait of [1000, 2500]) setTimeout(refreshPage, wait);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-verb], [data-enable], [data-redeliver], #delete");
  if (!button) return;
  const { verb, enable, redeliver } = button.dataset;
  act(button, async () => {
    if (verb === "test") {
      await call(`${address()}/test`, { method: "POST" });
      lookSoon();
    } else if (verb === "rotate") {
      if (await confirmed($("#rotate"))) show(await call(`${address()}/rotate`, { method: "POST" }));
    } else if (enable) {
      await call(address(), { method: "PATCH", body: { enabled: enable === "yes" } });
      lookSoon();
    } else if (redeliver) {
      await call(`${address()}/deliveries/${redeliver}/redeliver`, { method: "POST" });
      lookSoon();
    } else if (await confirmed($("#remove"))) {
      isDeleted = true;
      await call(address(), { method: "DELETE" }).catch((error) => {
        isDeleted = false;
        throw error;
      });
      location.assign("/ui/webhooks");
    }
  });
});
