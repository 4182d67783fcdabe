// Explains why two jobs have different results: compares the stored data, and submits a job that retrains both to find
// the batch.
import { $, h } from "../common/dom.js";
import { call } from "../common/api.js";
import { isOver } from "../common/job-facts.js";

const MAX_ROWS = 12;
const REPLAY = "A worker trains both again, side by side, until their weights differ.";

const line = (name, a, b) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, a), h("td", {}, b));

function lines(differences) {
  const { spec, provenance, dataset, checkpoint } = differences;
  const rows = [...spec, ...provenance, dataset].filter(Boolean).map((item) =>
    line(item.label, item.text_a, item.text_b)
  );
  if (checkpoint && !differences.data_differ) {
    const { epoch, first } = checkpoint;
    rows.push(
      line(
        `${first.tensor}${first.element.length ? `[${first.element.join(", ")}]` : ""} after epoch ${epoch}`,
        String(first.a ?? "–"),
        String(first.b ?? "–"),
      ),
    );
  }
  const hiddenCount = rows.length - MAX_ROWS;
  return hiddenCount > 0
    ? [...rows.slice(0, MAX_ROWS), h("tr", {}, h("td", { colspan: 3, class: "muted" }, `and ${hiddenCount} more`))]
    : rows;
}

export async function explain(jobs) {
  if (!$("#why")) return;
  const [a, b] = jobs.map((job) => job.id);
  const differences = await call(`/differences?a=${a}&b=${b}`).catch(() => null);
  if (!differences || differences.same) return;
  $("#why").hidden = false;
  // Said above.
  $("#why-sentence").textContent = differences.sentence.replace($("#why-not")?.textContent ?? "", "").trim();
  const rows = lines(differences);
  $("#why-table thead tr").replaceChildren(h("th"), ...jobs.map((job) => h("th", {}, job.label)));
  $("#why-table tbody").replaceChildren(...rows);
  $("#why-table").hidden = !rows.length;
  const button = $("#replay");
  button.hidden = !(differences.epoch || differences.checkpoint) || differences.data_differ || !jobs.every(isOver);
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
