// The most confident mistakes of the best checkpoint on the validation data.
import { $, h, percent } from "./dom.js";
import { call } from "./api.js";
import { lazy } from "./lazy.js";
import { rowsTable } from "./rows-table.js";
import { view } from "./viewer.js";

const FIRST = 24;
const MOST = 192;
const INTERVAL_MS = 10_000;

export function wireMistakes(job) {
  const root = $("#mistakes");
  if (!root) return { renew: () => {} };
  let limit = FIRST;
  let found = null;

  const mistakes = lazy(root, INTERVAL_MS, {
    request: () => call(`${job.urls.self}/mistakes?checkpoint=best&limit=${limit}`),
    show: (response) => {
      found = response;
      show();
    },
    fail: (error) => {
      $("#mistakes-state").hidden = false;
      $("#mistakes-state").textContent = error.message;
    },
  });

  function show() {
    const { data, count, checkpoint, validation_count: all } = found;
    $("#mistakes-of").textContent = `best checkpoint, epoch ${checkpoint}`;
    $("#mistakes-state").hidden = false;
    $("#mistakes-state").textContent = count
      ? `${count} of ${all} validation ${job.is_table ? "rows" : "images"} are classified wrongly (${percent(count / all)}). ${data.length < count ? `The ${data.length} most confident mistakes:` : ""}`
      : `All ${all} validation ${job.is_table ? "rows" : "images"} are classified correctly.`;
    const focused = document.activeElement?.closest("#mistakes [data-index]")?.dataset.index;
    if (job.is_table) $("#mistakes-images").replaceChildren(...(data.length ? [rowsTable(["True", "Predicted"], data.map(asRow))] : []));
    else $("#mistakes-images").replaceChildren(...data.map((item, place) => thumbnail(item, place)));
    if (focused) $(`#mistakes [data-index="${focused}"]`)?.focus({ preventScroll: true });
    $("#mistakes-more").hidden = data.length >= Math.min(count, MOST);
  }

  const name = (label) => found.class_names[label] ?? String(label);
  const about = (item) => `True ${name(item.true_class)}, predicted ${name(item.predicted_class)}`;

  const asRow = (item) => ({ row: item.row, cells: [name(item.true_class), h("span", {}, h("strong", {}, name(item.predicted_class)), ` ${(100 * item.confidence).toFixed(0)}%`)] });

  function thumbnail(item, place) {
    return h(
      "button",
      { type: "button", class: "thumb", dataset: { index: item.index }, "aria-label": `${about(item)}, ${percent(item.confidence)} confident`, onclick: () => view(images(), place) },
      h("img", { src: `data:image/png;base64,${item.image}`, alt: "" }),
      h("span", { class: "small" }, h("strong", {}, name(item.predicted_class)), ` ${(100 * item.confidence).toFixed(0)}%`),
      h("span", { class: "small muted" }, `true ${name(item.true_class)}`),
    );
  }

  function images() {
    const { data } = found;
    return {
      count: () => data.length,
      at: (place) => {
        const item = data[place];
        return {
          src: `data:image/png;base64,${item.image}`,
          title: about(item),
          about: `Validation image ${item.index}. Probability of ${name(item.predicted_class)}: ${percent(item.confidence)}, of ${name(item.true_class)}: ${percent(item.true_confidence)}. Mistake ${place + 1} of ${found.count}.`,
          file: `mistake-${item.index}.png`,
        };
      },
    };
  }

  $("#mistakes-more").addEventListener("click", () => {
    limit = Math.min(4 * limit, MOST);
    mistakes.load();
  });
  return mistakes;
}
