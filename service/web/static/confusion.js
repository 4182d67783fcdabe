// The pictures behind a cell of the confusion matrix.
import { $, announce, h } from "./dom.js";
import { call } from "./api.js";

export function wireConfusion(job) {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-actual]");
    if (!button) return;
    const { actual, predicted } = button.dataset;
    try {
      const cell = await call(`${job.urls.self}/confusion/${actual}/${predicted}`);
      $("#behind-title").textContent = button.getAttribute("aria-label");
      $("#behind-images").replaceChildren(...cell.images.map((image) => h("img", { src: `data:image/png;base64,${image}`, alt: "" })));
      $("#behind").showModal();
    } catch (error) {
      announce(error.message, "error");
    }
  });
}
