// Explains why two jobs have different results: compares the stored data, and submits a job that retrains both to find
// the batch.
import { $, h } from "../common/dom.js";
import { call } from "../common/api.js";
import { isOver } from "../common/job-facts.js";

const MAX_ROWS = 12;
const REPLAY = "A worker trains both again, side by side, until their weights differ.";

const show = (value) => (value === null || value === undefined ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));
const line = (name, a, b) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, show(a)), h("td", {}, show(b)));

function lines(differences) {
  const rows = differences.spec.map((item) => line(item.name.slice(1).replaceAll("/", "."), item.a, item.b));
  rows.push(...differences.provenance.map((item) => line(item.name, item.a, item.b)));
  if (differences.dataset) rows.push(line("data", differences.dataset.a, differences.dataset.b));
  if (differences.checkpoint) {
    const { epoch, first } = differences.checkpoint;
    rows.push(line(`${first.tensor}${first.element.length ? `[${first.element.join(", ")}]` : ""} after epoch ${epoch}`, first.a, first.b));
  }
  const hiddenCount = rows.length - MAX_ROWS;
  return hiddenCount > 0 ? [...rows.slice(0, MAX_ROWS), h("tr", {}, h("td", { colspan: 3, class: "muted" }, `and ${hiddenCount} more`))] : rows;
}

export async function explain(jobs) {
  if (!$("#why")) return;
  const [a, b] = jobs.map((job) => job.id);
  const differences = await call(`/differences?a=${a}&b=${b}`).catch(() => null);
  if (!differences) return;
  $("#why").hidden = false;
  $("#why-sentence").textContent = differences.sentence;
  const rows = lines(differences);
  $("#why-table thead tr").replaceChildren(h("th"), ...jobs.map((job) => h("th", {}, job.label)));
  $("#why-table tbody").replaceChildren(...rows);
  $("#why-table").hidden = !rows.length;
  const button = $("#replay");
  button.hidden = !(differences.epoch || differences.checkpoint) || !jobs.every(isOver);
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
