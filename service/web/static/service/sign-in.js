import { $ } from "../common/dom.js";
import { call } from "../common/api.js";
import { showFaults } from "../common/dialogs.js";

$("#sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { key } = event.target.elements;
  $("#message").hidden = true;
  try {
    const { link } = event.target.dataset;
    if (link) await call(`/session/${link}`, { method: "POST" });
    else await call("/session", { method: "POST", body: { key: key.value } });
    // If shown in place of a requested page, reload to get that page.
    if (link || location.pathname === "/ui/sign-in") location.assign("/");
    else location.reload();
  } catch (error) {
    showFaults($("#message"), error);
    key?.select();
  }
});
