// Creates, lists and revokes the share links of what the page shows.
import { $, h, when } from "../common/dom.js";
import { call } from "../common/api.js";
import { copy, showFaults } from "../common/dialogs.js";

const DAY_MS = 24 * 60 * 60 * 1000;
const dialog = $("#share");
const { path } = dialog.dataset;

// Calls the service; a problem is shown in the dialog.
async function attempt(work) {
  $("#share-error").hidden = true;
  try {
    await work();
    await showLinks();
  } catch (error) {
    showFaults($("#share-error"), error);
  }
}

async function showLinks() {
  const { data } = await call("/shares");
  const links = data.filter((link) => link.path === path);
  $("#share-links").hidden = !links.length;
  $("#share-links ul").replaceChildren(...links.map(row));
}

function row(link) {
  const revoke = () =>
    attempt(async () => {
      await call(`/shares/${link.id}`, { method: "DELETE" });
      $("#share-new").hidden = true; // it may be the revoked one
    });
  const times = [
    `created ${when(link.created_at)},`,
    link.expires_at ? `expires ${when(link.expires_at)}` : "never expires",
  ];
  const lines = times.map((text) => h("div", {}, text));
  return h(
    "li",
    { class: "small" },
    h("div", {}, ...lines),
    h("button", {
      type: "button",
      class: "slim danger",
      "aria-label": `Revoke the link ${times.join(" ")}`,
      onclick: revoke,
    }, "Revoke"),
  );
}

$("#share-open").addEventListener("click", () => {
  $("#share-new").hidden = true;
  dialog.showModal();
  attempt(async () => {});
});
$("#share-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const days = Number($("#share-days").value);
  const expires_at = days ? new Date(Date.now() + days * DAY_MS).toISOString() : null;
  attempt(async () => {
    const { url } = await call("/shares", { method: "POST", body: { path, expires_at } });
    $("#share-url").value = url;
    $("#share-new").hidden = false;
    $("#share-url").select();
  });
});
$("#share-copy").addEventListener("click", () => copy($("#share-url").value, $("#share-url")));
dialog.addEventListener("close", () => ($("#share-url").value = ""));
