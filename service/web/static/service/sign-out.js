import { $ } from "../common/dom.js";
import { confirmed } from "../common/dialogs.js";

$("#sign-out").addEventListener("click", async () => {
  const dialog = $("#leave"); // only if the browser cannot sign in again
  if (dialog && !(await confirmed(dialog))) return;
  await fetch("/session", { method: "DELETE" });
  location.assign("/ui/sign-in");
});
