// Shows times in the user's time zone, with UTC on hover. The server renders UTC, which remains without scripts.

// Created once: it is slow.
const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export function localize(root) {
  for (const element of root.querySelectorAll("time[datetime]")) write(element);
}

function write(element) {
  const date = new Date(element.dateTime);
  if (Number.isNaN(date.getTime())) return;
  const utc = `${date.toISOString().slice(0, 19).replace("T", " ")} UTC`;
  if (/^$|UTC$/.test(element.textContent.trim())) {
    element.textContent = local.format(date);
    element.title = utc;
  } else if (element.title !== utc) {
    element.title = `${local.format(date)} · ${utc}`; // keep other texts, like "5 min ago"
  }
}

localize(document);
// Elements that other scripts add or change later.
new MutationObserver((changes) => {
  for (const { target, type, addedNodes } of changes) {
    if (type === "attributes") write(target);
    for (const node of addedNodes) {
      if (node.nodeType !== Node.ELEMENT_NODE) continue;
      if (node.matches("time[datetime]")) write(node);
      localize(node);
    }
  }
}).observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ["datetime"] });
