import { capital } from "../common/dom.js";

const form = document.querySelector("#sign-in");
const message = document.querySelector("#message");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  message.hidden = true;
  try {
    const response = await fetch("/session", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ key: form.elements.key.value }),
    });
    if (!response.ok) throw new Error((await response.json()).detail);
    // If shown in place of a requested page, reload to get that page.
    if (location.pathname === "/ui/sign-in") location.assign("/");
    else location.reload();
  } catch (error) {
    message.textContent = capital(error.message);
    message.hidden = false;
    form.elements.key.select();
  }
});
