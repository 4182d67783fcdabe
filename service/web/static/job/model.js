// The model that the page shows, named in #model, whose links switch it, and the tiles with its metrics.
import { $, $$, bytes, describe, duration, h, metric } from "../common/dom.js";
import { call } from "../common/api.js";

export const shownCheckpoint = () => $("#model").dataset.checkpoint;
export const shownModel = () => `${shownCheckpoint()}: epoch ${$("#model").dataset.epoch}`;
export const isStored = () => $("#model").dataset.epoch !== "";

// A result of the shown model, with the label of the model.
export async function evaluate(address, parameters = {}) {
  const checkpoint = shownCheckpoint();
  const response = await call(`${address}?${new URLSearchParams({ checkpoint, ...parameters })}`);
  return { ...response, label: `${checkpoint}: epoch ${response.checkpoint}` };
}

// update(): refreshes the page, whose address has changed.
export function wireModel(update) {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-model]");
    // To another tab or window.
    if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    history.replaceState(null, "", link.href);
    update().catch(() => location.reload());
  });
}

// Names the models after a new checkpoint.
export function moveModel({ epoch, best }) {
  for (const link of $$("#model a")) {
    if (best || link.dataset.model === "latest") link.textContent = `${link.dataset.model}: epoch ${epoch}`;
  }
  if (!best && shownCheckpoint() === "best") return;
  $("#model").dataset.epoch = epoch;
  // Until the server has computed it.
  for (const interval of $$("#tiles .interval")) interval.style.visibility = "hidden";
  for (const label of $$("[data-label]")) label.textContent = shownModel();
}

// The best value of a metric and its epoch. Among equally accurate epochs, it is the one with the best checkpoint.
function bestOf(table, name) {
  const { goal } = describe(name);
  const values = table.series[name].filter((value) => value !== null);
  if (!goal || !values.length) return null;
  const value = values.reduce((a, b) => (goal === "maximize" ? Math.max(a, b) : Math.min(a, b)));
  const isSelected = name === "val_accuracy" && table.best_epoch;
  return { value, epoch: isSelected ? table.best_epoch : table.epochs[table.series[name].indexOf(value)] };
}

// Shows the metrics of the model as in service/web/jobs/tiles.py. Intervals and scores on the test part need the
// server.
export function showTiles(table, { reused_epochs: reused }) {
  const shown = table.epochs.indexOf(Number($("#model").dataset.epoch));
  for (const tile of shown < 0 ? [] : $$("#tiles [data-metric]")) {
    const name = tile.dataset.metric;
    const values = table.series[name];
    if (!values) continue; // a score on the test part
    const at = describe(name).sparse ? values.findLastIndex((value, index) => index <= shown && value !== null) : shown;
    const best = bestOf(table, name);
    const isBest = table.epochs[at] === best?.epoch;
    const of = at === shown ? "" : `epoch ${table.epochs[at]}`;
    const note = best && (of && isBest ? "the best" : `best ${metric(name, best.value)} in epoch ${best.epoch}`);
    $(".value", tile).textContent = metric(name, values[at]);
    const text = [of, note].filter(Boolean).join(note === "the best" ? ", " : "; ");
    $(".best", tile)?.remove();
    if (text) tile.append(h("div", { class: isBest ? "best small now" : "best small" }, text));
  }
  const own = (column) => column.filter((value, index) => value !== null && table.epochs[index] > reused);
  const sum = (column) => own(column).reduce((a, b) => a + b, 0);
  const show = (name, value, format) => {
    const tile = $(`[data-resource=${name}]`);
    if (tile) $(".value", tile).textContent = format(Math.max(value, Number(tile.dataset.value)));
  };
  show("duration", sum(table.seconds), duration);
  show("cpu", sum(table.resources.cpu_seconds), duration);
  show("memory", Math.max(...own(table.resources.memory_bytes)), bytes);
}
