// The buttons that start a first job; the page shows them while there are no jobs.
import { $$, announce } from "../common/dom.js";
import { call, onRestored } from "../common/api.js";

onRestored(() => $$("[data-start]").forEach((button) => (button.disabled = false)));
for (const button of $$("[data-start]")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    const kind = button.dataset.start;
    try {
      const job = await call("/jobs", { method: "POST", body: { kind, name: `first ${kind}` } });
      location.assign(job.urls.page);
    } catch (error) {
      announce(error.message, "error");
      button.disabled = false;
    }
  });
}
