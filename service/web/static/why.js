// Why two jobs have different results: compares what is stored, and submits a job that retrains both to find the batch.
import { $, h } from "./dom.js";
import { call } from "./api.js";
import { isOver } from "./job-facts.js";

const SHOWN = 12; // rows
const REPLAY = "A worker trains both again, side by side, until their weights differ.";

const show = (value) => (value === null || value === undefined ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));
const line = (name, a, b) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, show(a)), h("td", {}, show(b)));

function lines(found) {
  const rows = found.spec.map((item) => line(item.name.slice(1).replaceAll("/", "."), item.a, item.b));
  rows.push(...found.provenance.map((item) => line(item.name, item.a, item.b)));
  if (found.dataset) rows.push(line("data", found.dataset.a, found.dataset.b));
  if (found.checkpoint) {
    const { epoch, first } = found.checkpoint;
    rows.push(line(`${first.tensor}${first.element.length ? `[${first.element.join(", ")}]` : ""} after epoch ${epoch}`, first.a, first.b));
  }
  const left = rows.length - SHOWN;
  return left > 0 ? [...rows.slice(0, SHOWN), h("tr", {}, h("td", { colspan: 3, class: "muted" }, `and ${left} more`))] : rows;
}

export async function explain(jobs) {
  if (!$("#why")) return;
  const [a, b] = jobs.map((job) => job.id);
  const found = await call(`/differences?a=${a}&b=${b}`).catch(() => null);
  if (!found) return;
  $("#why").hidden = false;
  $("#why-sentence").textContent = found.sentence;
  const rows = lines(found);
  $("#why-table thead tr").replaceChildren(h("th"), ...jobs.map((job) => h("th", {}, job.label)));
  $("#why-table tbody").replaceChildren(...rows);
  $("#why-table").hidden = !rows.length;
  const button = $("#replay");
  button.hidden = !(found.epoch || found.checkpoint) || !jobs.every(isOver);
  if (button.hidden) return;
  $("#replay-note").textContent = REPLAY;
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const job = await call("/differences", { method: "POST", body: { a, b } });
      location.assign(job.urls.page);
    } catch (error) {
      button.disabled = false;
      $("#replay-note").textContent = error.message;
    }
  });
}
