// Fetches the parts of a page whose content no event has: [data-live]. Their elements, opened details, scroll positions
// and the keyboard focus are kept.
import { $$ } from "./dom.js";
import { read } from "./api.js";
import { latest } from "./latest.js";
import { released } from "./press.js";
import { localize } from "./times.js";

const SCROLLABLE = ".scroll, [tabindex='0']";
const FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]";

// One request at a time: an older page never replaces a newer one.
export const refresh = latest(async () => {
  let page;
  do page = await read(location.href); while (await released());
  document.title = page.title;
  localize(page); // as on the displayed page; otherwise every part would differ
  for (const updated of $$("[data-live]", page)) {
    const current = document.getElementById(updated.id);
    if (current) replace(current, updated);
  }
});

function replace(current, updated) {
  for (const details of $$("details[id][open]", current)) {
    updated.querySelector(`#${CSS.escape(details.id)}`)?.setAttribute("open", "");
  }
  if (current.isEqualNode(updated)) return;
  const focused = current.contains(document.activeElement) ? document.activeElement : null;
  const scrollPositions = $$(SCROLLABLE, current).map((part) => [part.scrollLeft, part.scrollTop]);
  const toFocus = focused && focused !== current && counterpart(focused, current, updated);
  current.replaceChildren(...updated.childNodes);
  for (const name of current.getAttributeNames()) if (!updated.hasAttribute(name)) current.removeAttribute(name);
  for (const name of updated.getAttributeNames()) current.setAttribute(name, updated.getAttribute(name));
  $$(SCROLLABLE, current).forEach((part, index) => part.scrollTo(...(scrollPositions[index] ?? [0, 0])));
  if (toFocus) toFocus.focus({ preventScroll: true });
}

// The element of the updated part that corresponds to one of the current part: the n-th of those with the same
// signature. If there is none, the part itself if it can have the focus, or else its first focusable element, so that
// the focus stays in this part of the page.
function counterpart(element, current, updated) {
  const similar = (root) => $$(FOCUSABLE, root).filter((other) => signature(other) === signature(element));
  const substitute = updated.matches("[tabindex]") ? current : $$(FOCUSABLE, updated)[0];
  return similar(updated)[similar(current).indexOf(element)] ?? substitute;
}

function signature(element) {
  if (element.id) return `#${element.id}`;
  if (element.tagName === "SUMMARY" && element.parentElement.id) return `#${element.parentElement.id} > summary`;
  const data = Object.entries(element.dataset).sort();
  const name = data.length ? "" : (element.getAttribute("aria-label") ?? element.textContent.trim());
  return JSON.stringify([element.tagName, element.getAttribute("href"), data, name]);
}
