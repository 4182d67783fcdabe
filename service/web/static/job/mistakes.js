// The most confident mistakes of the shown model on the validation data.
import { $, h, percent } from "../common/dom.js";
import { lazy } from "./lazy.js";
import { rowsTable } from "./confusion.js";
import { evaluate } from "./model.js";
import { view } from "./viewer.js";

const INITIAL_COUNT = 24;
const MAX_COUNT = 192;

export function wireMistakes(job) {
  const root = $("#mistakes");
  if (!root) return [];
  let limit = INITIAL_COUNT;
  let result = null;

  const mistakes = lazy([root], {
    request: () => evaluate(`${job.urls.self}/mistakes`, { limit }),
    show: (response) => {
      result = response;
      show();
    },
    fail: (error) => {
      $("#mistakes-state").hidden = false;
      $("#mistakes-state").textContent = error.message;
    },
  });

  function show() {
    const { data, count, label, validation_count: all } = result;
    $("[data-of]", root).textContent = label;
    root.classList.toggle("brief", !count);
    $("#mistakes-state").hidden = false;
    $("#mistakes-state").textContent = count
      ? `${count} of ${all} validation ${job.is_table ? "rows" : "images"} are classified wrongly (${
        percent(count / all)
      }). ${data.length < count ? `The ${data.length} most confident mistakes:` : ""}`
      : `All ${all} validation ${job.is_table ? "rows" : "images"} are classified correctly.`;
    const focused = document.activeElement?.closest("#mistakes [data-index]")?.dataset.index;
    if (job.is_table) {
      $("#mistakes-images").replaceChildren(
        ...(data.length ? [rowsTable(["True", "Predicted"], data.map(asRow))] : []),
      );
    } else $("#mistakes-images").replaceChildren(...data.map((item, index) => thumbnail(item, index)));
    if (focused) $(`#mistakes [data-index="${focused}"]`)?.focus({ preventScroll: true });
    $("#mistakes-more").hidden = data.length >= Math.min(count, MAX_COUNT);
  }

  const name = (label) => result.class_names[label] ?? String(label);
  const about = (item) => `True ${name(item.true_class)}, predicted ${name(item.predicted_class)}`;

  const asRow = (item) => ({
    row: item.row,
    cells: [
      name(item.true_class),
      h("span", {}, h("strong", {}, name(item.predicted_class)), ` ${(100 * item.confidence).toFixed(0)}%`),
    ],
  });

  function thumbnail(item, index) {
    return h(
      "button",
      {
        type: "button",
        class: "thumb",
        dataset: { index: item.index },
        "aria-label": `${about(item)}, ${percent(item.confidence)} confident`,
        onclick: () => view(images(), index),
      },
      h("img", { src: `data:image/png;base64,${item.image}`, alt: "" }),
      h(
        "span",
        { class: "small" },
        h("strong", {}, name(item.predicted_class)),
        ` ${(100 * item.confidence).toFixed(0)}%`,
      ),
      h("span", { class: "small muted" }, `true ${name(item.true_class)}`),
    );
  }

  function images() {
    const { data } = result;
    return {
      count: () => data.length,
      at: (index) => {
        const item = data[index];
        return {
          src: `data:image/png;base64,${item.image}`,
          title: about(item),
          about: `Validation image ${item.index}. Probability of ${name(item.predicted_class)}: ${
            percent(item.confidence)
          }, of ${name(item.true_class)}: ${percent(item.true_confidence)}. Mistake ${index + 1} of ${result.count}.`,
          file: `mistake-${item.index}.png`,
        };
      },
    };
  }

  $("#mistakes-more").addEventListener("click", () => {
    limit = Math.min(4 * limit, MAX_COUNT);
    mistakes.load();
  });
  return [mistakes];
}
