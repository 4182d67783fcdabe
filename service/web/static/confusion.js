// The pictures behind a cell of the confusion matrix.
import { $, announce, h } from "./dom.js";
import { call } from "./api.js";

export function wireConfusion(job) {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-actual]");
    if (!button) return;
    const { actual, predicted } = button.dataset;
    try {
      const cell = await call(`${job.urls.self}/confusion/${actual}/${predicted}?checkpoint=latest&limit=60`);
      $("#behind-title").textContent = button.getAttribute("aria-label");
      $("#behind-images").replaceChildren(...cell.images.map((image, index) =>
          h("figure", {}, h("img", { src: `data:image/png;base64,${image}`, alt: `Validation picture ${cell.indices[index]}` }), h("figcaption", { class: "small muted" }, `${(100 * cell.confidences[index]).toFixed(0)}%`)),
        ));
      $("#behind").showModal();
    } catch (error) {
      announce(error.message, "error");
    }
  });
}
