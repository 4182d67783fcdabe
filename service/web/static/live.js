// Replaces each [data-live] part of the page by what the server shows now; the server makes the HTML, so there is one
// set of templates. Unchanged parts, opened details, scroll positions and the keyboard focus are kept.
import { $$ } from "./dom.js";
import { read } from "./api.js";
import { latest } from "./latest.js";
import { localize } from "./times.js";

const SCROLLED = ".scroll, [tabindex='0']";
const FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]";

// One request at a time: an older page never replaces a newer one.
export const refresh = latest(async () => {
  const page = await read(location.href);
  document.title = page.title;
  localize(page); // as was done on the page; otherwise every part would differ
  for (const now of $$("[data-live]", page)) {
    const before = document.getElementById(now.id);
    if (before) replace(before, now);
  }
});

function replace(before, now) {
  for (const details of $$("details[id][open]", before)) now.querySelector(`#${CSS.escape(details.id)}`)?.setAttribute("open", "");
  if (before.isEqualNode(now)) return;
  const focused = before.contains(document.activeElement) ? document.activeElement : null;
  const places = $$(SCROLLED, before).map((part) => [part.scrollLeft, part.scrollTop]);
  const again = focused && same(focused, before, now);
  before.replaceWith(now);
  $$(SCROLLED, now).forEach((part, index) => part.scrollTo(...(places[index] ?? [0, 0])));
  again?.focus({ preventScroll: true });
}

// The element of the new part that corresponds to one of the old part: the n-th of those that look the same.
// If there is none, the first focusable element, so that the focus stays at this place of the page.
function same(element, before, now) {
  if (element === before) return now;
  const twins = (root) => $$(FOCUSABLE, root).filter((other) => signature(other) === signature(element));
  return twins(now)[twins(before).indexOf(element)] ?? $$(FOCUSABLE, now)[0] ?? null;
}

function signature(element) {
  if (element.id) return `#${element.id}`;
  if (element.tagName === "SUMMARY" && element.parentElement.id) return `#${element.parentElement.id} > summary`;
  const data = Object.entries(element.dataset).sort();
  const name = data.length ? "" : (element.getAttribute("aria-label") ?? element.textContent.trim());
  return JSON.stringify([element.tagName, element.getAttribute("href"), data, name]);
}
