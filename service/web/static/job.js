import { refresh } from "./live.js";

const AT_MOST_EVERY_MS = 2000;
const KINDS = ["status", "metrics", "sample", "checkpoint", "health", "log"];

const live = document.querySelector("#live");
const source = new EventSource(`${live.dataset.stream}?after=${live.dataset.after}`);

let due = null;
let last = 0;

// Many events may come at once: one new look shows them all.
function soon() {
  due ??= setTimeout(async () => {
    due = null;
    last = Date.now();
    await refresh().catch(() => {});
  }, Math.max(100, last + AT_MOST_EVERY_MS - Date.now()));
}

function show(id, text) {
  const element = document.querySelector(id);
  if (element) element.textContent = text;
}

for (const kind of KINDS) source.addEventListener(kind, soon);
source.addEventListener("end", () => {
  source.close();
  soon();
});
source.addEventListener("progress", (event) => {
  const now = JSON.parse(event.data);
  const bar = document.querySelector("#progress");
  if (bar) bar.value = now.fraction;
  show("#epoch", `epoch ${now.epoch} of ${now.epochs}`);
  show("#step", `batch ${now.step} of ${now.steps}`);
  show("#eta", now.eta_seconds === null ? "" : `· ${Math.round(now.eta_seconds)} s left`);
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-action]");
  if (!button) return;
  const { action, address } = button.dataset;
  if (action === "delete" && !confirm("Delete this job with all its checkpoints and samples?")) return;
  button.disabled = true;
  const message = document.querySelector("#message");
  message.hidden = true;
  try {
    const answer = await (action === "delete"
      ? fetch(address, { method: "DELETE" })
      : fetch(`${address}/${action}`, { method: "POST" }));
    if (!answer.ok) throw new Error((await answer.json()).detail);
    if (action === "delete") location.assign("/");
    else if (answer.status === 201) location.assign((await answer.json()).urls.page);
    else if (source.readyState === EventSource.CLOSED) location.reload();
    else soon();
  } catch (error) {
    message.textContent = error.message;
    message.hidden = false;
    button.disabled = false;
  }
});
