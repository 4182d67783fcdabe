// Replaces each [data-live] part of the page by what the server shows now; the server makes the HTML, so there is one
// set of templates. Parts that have not changed, opened details, what was scrolled and the keyboard's place stay.
import { $$ } from "./dom.js";
import { localize } from "./times.js";

const SCROLLED = ".scroll, [tabindex='0']";

export async function refresh() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) throw new Error(`HTTP status ${answer.status}`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.title = page.title;
  localize(page); // as the parts on the page already are: else each of them would differ
  for (const now of page.querySelectorAll("[data-live]")) {
    const before = document.getElementById(now.id);
    if (!before) continue;
    for (const details of before.querySelectorAll("details[id][open]")) {
      now.querySelector(`#${details.id}`)?.setAttribute("open", "");
    }
    if (before.isEqualNode(now)) continue;
    const focused = before.contains(document.activeElement) ? handle(document.activeElement) : null;
    const places = $$(SCROLLED, before).map((part) => [part.scrollLeft, part.scrollTop]);
    before.replaceWith(now);
    $$(SCROLLED, now).forEach((part, index) => part.scrollTo(...(places[index] ?? [0, 0])));
    if (focused) now.querySelector(focused)?.focus({ preventScroll: true });
  }
}

function handle(element) {
  if (element.id) return `#${element.id}`;
  const { action, actual, predicted } = element.dataset;
  if (action) return `[data-action="${action}"]`;
  if (actual) return `[data-actual="${actual}"][data-predicted="${predicted}"]`;
  return element.tagName === "SUMMARY" && element.parentElement.id ? `#${element.parentElement.id} > summary` : null;
}
