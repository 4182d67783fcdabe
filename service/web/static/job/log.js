// Appends new events to a job's log. The server selects and renders them, so filters are applied in one place.
import { $, $$, throttle } from "../common/dom.js";
import { listen, read } from "../common/api.js";
import { latest } from "../common/latest.js";

const MAX_LINES = 2000; // the oldest lines of a longer log are removed from the page
const facts = JSON.parse($("#facts").textContent);
const list = $("#log");
let lastSeq = facts.last_seq;
let renderedSeq = lastSeq;
let isEnded = false;

// One request at a time: overlapping ones would return the same lines twice.
const loadNewLines = throttle(
  600,
  latest(async () => {
    const address = new URL(location.href);
    address.searchParams.set("after", renderedSeq);
    address.searchParams.set("limit", "1000");
    const page = await read(address).catch(() => null);
    if (!page) {
      setTimeout(loadNewLines, 3000);
      return;
    }
    const lines = $$("#log > li", page);
    const hasMore = lines.length === 1000;
    renderedSeq = hasMore
      ? Number(lines.at(-1).dataset.seq)
      : Math.max(renderedSeq, JSON.parse($("#facts", page).textContent).last_seq);
    list.append(...lines);
    while (list.children.length > MAX_LINES) list.firstElementChild.remove();
    $("#none").hidden = list.children.length > 0;
    const status = $(".heading .lead", page);
    if (status) $(".heading .lead").replaceWith(status);
    if (lines.length && $("#scroll")?.checked) list.lastElementChild.scrollIntoView({ block: "nearest" });
    if (hasMore || renderedSeq < lastSeq) loadNewLines();
    else if (isEnded) $("#live").textContent = "The job has ended: the log is complete.";
  }),
);

if (facts.follows) {
  const receive = (event) => {
    lastSeq = Math.max(lastSeq, event.seq ?? 0);
    loadNewLines();
  };
  const types = ["status", "metrics", "sample", "checkpoint", "health", "log"];
  const source = listen(() => `${facts.stream}?after=${lastSeq}`, {
    ...Object.fromEntries(types.map((type) => [type, receive])),
    end: (event) => {
      isEnded = true;
      source.close();
      receive(event);
    },
  });
  if ($("#scroll").checked) list.lastElementChild?.scrollIntoView({ block: "nearest" });
}
