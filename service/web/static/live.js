// Replaces each [data-live] part of the page by what the server shows now; the server makes the HTML, so there is one
// set of templates. Parts that have not changed, opened details and the keyboard's place stay as they are.
import { localize } from "./times.js";

export async function refresh() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) throw new Error(`HTTP status ${answer.status}`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  localize(page); // as the parts on the page already are: else each of them would differ
  for (const now of page.querySelectorAll("[data-live]")) {
    const before = document.getElementById(now.id);
    if (!before) continue;
    for (const details of before.querySelectorAll("details[id][open]")) {
      now.querySelector(`#${details.id}`)?.setAttribute("open", "");
    }
    if (before.isEqualNode(now)) continue;
    const focused = before.contains(document.activeElement) ? handle(document.activeElement) : null;
    before.replaceWith(now);
    if (focused) now.querySelector(focused)?.focus({ preventScroll: true });
  }
}

function handle(element) {
  if (element.id) return `#${element.id}`;
  if (element.dataset.action) return `[data-action="${element.dataset.action}"]`;
  return element.tagName === "SUMMARY" && element.parentElement.id ? `#${element.parentElement.id} > summary` : null;
}
