// Appends new events to a job's log. The server selects and renders them, so filters are applied in one place.
import { $, $$, throttle } from "./dom.js";
import { listen, read } from "./api.js";
import { latest } from "./latest.js";

const MOST = 2000; // lines that a page keeps
const facts = JSON.parse($("#facts").textContent);
const list = $("#log");
let last = facts.last_seq;
let rendered = last;
let over = false;

// One request at a time: overlapping ones would return the same lines twice.
const renew = throttle(600, latest(async () => {
  const address = new URL(location.href);
  address.searchParams.set("after", rendered);
  address.searchParams.set("limit", "1000");
  const page = await read(address).catch(() => null);
  if (!page) {
    setTimeout(renew, 3000);
    return;
  }
  const lines = $$("#log > li", page);
  const more = lines.length === 1000;
  rendered = more ? Number(lines.at(-1).dataset.seq) : Math.max(rendered, JSON.parse($("#facts", page).textContent).last_seq);
  list.append(...lines);
  while (list.children.length > MOST) list.firstElementChild.remove();
  $("#none").hidden = list.children.length > 0;
  const status = $(".heading .lead", page);
  if (status) $(".heading .lead").replaceWith(status);
  if (lines.length && $("#scroll")?.checked) list.lastElementChild.scrollIntoView({ block: "nearest" });
  if (more || rendered < last) renew();
  else if (over) $("#live").textContent = "The job has ended: the log is complete.";
}));

if (facts.follows) {
  const receive = (news) => {
    last = Math.max(last, news.seq ?? 0);
    renew();
  };
  const types = ["status", "metrics", "sample", "checkpoint", "health", "log"];
  const source = listen(() => `${facts.stream}?after=${last}`, {
    ...Object.fromEntries(types.map((type) => [type, receive])),
    end: (news) => {
      over = true;
      source.close();
      receive(news);
    },
  });
  if ($("#scroll").checked) list.lastElementChild?.scrollIntoView({ block: "nearest" });
}
