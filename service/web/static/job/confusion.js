// The images or rows behind a cell of the confusion matrix, and tables of rows with their predictions.
import { $, announce, h, percent } from "../common/dom.js";
import { call } from "../common/api.js";
import { requestSequence } from "../common/latest.js";
import { shownCheckpoint } from "./model.js";
import { view } from "./viewer.js";

export function wireConfusion(job) {
  const nextRequest = requestSequence();
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-actual]");
    if (!button) return;
    const { actual, predicted } = button.dataset;
    const title = button.getAttribute("aria-label");
    const isNewest = nextRequest();
    try {
      const cell = await call(
        `${job.urls.self}/confusion/${actual}/${predicted}?checkpoint=${shownCheckpoint()}&limit=60`,
      );
      if (!isNewest()) return; // another cell has been clicked since
      const images = {
        count: () => cell.images.length,
        at: (index) => ({
          src: `data:image/png;base64,${cell.images[index]}`,
          title: title.split(":")[0],
          about: `Validation image ${cell.indices[index]}. Probability of the predicted class: ${
            percent(cell.confidences[index])
          }.`,
          file: `image-${cell.indices[index]}.png`,
        }),
      };
      $("#cell-title").textContent = title;
      const order = actual === predicted ? "least confident first" : "most confident first";
      $("#cell-about").textContent = `Checkpoint of epoch ${cell.checkpoint}, ${order}${
        cell.indices.length < cell.count ? `: ${cell.indices.length} of ${cell.count}` : ""
      }.`;
      const isRight = actual === predicted;
      const rows = cell.rows?.map((row, index) => ({ row, cells: [percent(cell.confidences[index])] }));
      if (rows) {
        $("#cell-images").replaceChildren(
          rowsTable([isRight ? "Probability" : "Probability of the predicted class"], rows),
        );
      } else {$("#cell-images").replaceChildren(
          ...cell.images.map((image, index) =>
            h(
              "button",
              {
                type: "button",
                class: "thumb",
                "aria-label": `Validation image ${cell.indices[index]}`,
                onclick: () => view(images, index),
              },
              h("img", { src: `data:image/png;base64,${image}`, alt: "" }),
              h("span", { class: "small muted" }, `${(100 * cell.confidences[index]).toFixed(0)}%`),
            )
          ),
        );}
      if (!$("#cell").open) $("#cell").showModal();
    } catch (error) {
      if (isNewest()) announce(error.message, "error");
    }
  });
}

// A table of rows. heads: names of the first columns, which are numbers or not; items: { cells, row }, with one cell
// for each head.
export function rowsTable(heads, items, areNumbers = false) {
  const names = Object.keys(items[0]?.row ?? {});
  const numbers = new Set(names.filter((name) => items.some(({ row }) => typeof row[name] === "number")));
  const head = (name) => h("th", { scope: "col", class: numbers.has(name) ? "number" : undefined }, name);
  return h(
    "table",
    { class: "rows" },
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        heads.map((name) => h("th", { scope: "col", class: areNumbers ? "number" : undefined }, name)),
        names.map(head),
      ),
    ),
    h(
      "tbody",
      {},
      items.map(({ cells, row }) =>
        h(
          "tr",
          {},
          cells.map((cell) => h("td", { class: areNumbers ? "number small" : "small" }, cell)),
          names.map((name) => h("td", { class: numbers.has(name) ? "number small" : "small" }, cellContent(row[name]))),
        )
      ),
    ),
  );
}

// Numbers as in the file: without binary rounding noise, and without scientific notation for ordinary numbers.
const exact = (value) => Number(value.toPrecision(15)).toString();
const cellContent = (
  value,
) => (value === null ? h("span", { class: "muted" }, "missing") : typeof value === "number" ? exact(value) : value);
