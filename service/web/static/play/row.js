// A form for one row of a table, with live predictions.
import { $, $$, debounce, h, metric, sentence } from "../common/dom.js";
import { call } from "../common/api.js";
import { barsOf, wireCheckpoints } from "./parts.js";
import { latest } from "../common/latest.js";
import { wireFile } from "./row-file.js";

const job = JSON.parse($("#job").textContent);
const form = $("#row");

if (form) {
  const fields = new Map($$("[data-column]", form).map((field) => [field.dataset.column, field]));
  const showBars = $("#bars") ? barsOf($("#bars")) : () => {};
  const epoch = wireCheckpoints(job, () => predict());

  const predict = latest(async () => {
    const row = Object.fromEntries([...fields].map(([name, field]) => [name, field.value.trim() || null]));
    for (const field of fields.values()) field.removeAttribute("aria-invalid");
    try {
      show(await call(`${job.urls.self}/predict`, { method: "POST", body: { rows: [row], checkpoint: epoch() } }));
      $("#row-error").hidden = true;
    } catch (error) {
      refuse(error);
    }
  });
  const predictSoon = debounce(120, predict);

  function show(
    { values, target, typical_error: error, notes, probabilities: [shares], classes: [winner], class_names: names },
  ) {
    const about = [
      ...(error === null ? [] : [`typical error ${metric("val_rmse", error)}, the RMSE on validation data`]),
      ...notes,
    ];
    $("#row-about").replaceChildren(...about.map((text) => h("div", {}, sentence(text))));
    if (values) {
      $("#verdict").textContent = `${target}: ${metric("val_rmse", values[0])}`;
      $("#verdict").dataset.answer = values[0];
      return;
    }
    showBars(shares, winner);
    $("#verdict").textContent = `${names[winner]}, ${(100 * shares[winner]).toFixed(0)}%`;
    $("#verdict").dataset.answer = names[winner];
  }

  function refuse({ message, problem }) {
    const faults = problem?.errors ?? [];
    const columns = faults.map(({ pointer }) =>
      (pointer ?? "").split("/")[3]?.replaceAll("~1", "/").replaceAll("~0", "~")
    );
    for (const name of columns) fields.get(name)?.setAttribute("aria-invalid", "true");
    $("#verdict").textContent = "–";
    delete $("#verdict").dataset.answer;
    showBars();
    $("#row-about").replaceChildren();
    const texts = faults.length
      ? faults.map(({ detail }, index) => `${columns[index] ?? "The row"} ${detail}.`)
      : [message];
    $("#row-error").replaceChildren(...texts.map((text) => h("div", {}, text)));
    $("#row-error").hidden = false;
  }

  function reset() {
    for (const { name, usual } of job.fields) fields.get(name).value = usual;
    predict();
  }

  form.addEventListener("input", predictSoon);
  form.addEventListener("submit", (event) => event.preventDefault());
  $("#usual").addEventListener("click", reset);
  wireFile(job, epoch);
  reset();
}
