// The jobs selected in the list, and the actions on them.
import { $, announce } from "./dom.js";
import { confirmedDeletion, onEach } from "./bulk-actions.js";
import { call } from "./api.js";

export const COMPARED = 200; // maximum number of jobs in a comparison

export class SelectedJobs {
  ids = new Set();
  #jobs;
  #on;
  #last = null;

  // jobs: a map by id. on: shown() returns the ids of the rows in order; draw(), forget(id) and renew() update the page.
  constructor(jobs, on) {
    this.#jobs = jobs;
    this.#on = on;
    $("#selection").addEventListener("click", (event) => {
      const what = event.target.closest("button")?.dataset.do;
      if (what) this.act(what);
    });
  }

  get #chosen() {
    return [...this.ids].map((id) => this.#jobs.get(id));
  }

  // Toggles a job, or the range from the last toggled one to this one.
  toggle(id, isRange) {
    const ids = this.#on.shown();
    const wanted = !this.ids.has(id);
    const [from, to] = [ids.indexOf(isRange && this.#last ? this.#last : id), ids.indexOf(id)].sort((a, b) => a - b);
    for (const item of ids.slice(Math.max(from, 0), to + 1)) wanted ? this.ids.add(item) : this.ids.delete(item);
    this.#last = id;
    this.#on.draw();
  }

  toggleAll(on) {
    for (const id of this.#on.shown()) on ? this.ids.add(id) : this.ids.delete(id);
    this.#on.draw();
  }

  // The bar of actions, with a reason for each disabled one, and the check box for all.
  draw(shown, all) {
    for (const id of this.ids) if (!shown.includes(id)) this.ids.delete(id);
    const those = this.#chosen;
    const can = (action) => those.some((job) => job.allowed_actions.includes(action));
    const reasons = {
      compare: those.length < 2 ? "Select at least two jobs to compare." : those.length > COMPARED ? `At most ${COMPARED} jobs can be compared.` : "",
      cancel: can("cancel") ? "" : "Nothing to cancel: all have ended.",
      delete: can("delete") ? "" : "Nothing to delete: only jobs that have ended can be.",
    };
    $("#selection").hidden = those.length === 0;
    $("#selection strong").textContent = `${those.length} selected`;
    for (const [what, reason] of Object.entries(reasons)) {
      $(`[data-do="${what}"]`).disabled = reason !== "";
      $(`[data-do="${what}"]`).title = reason;
    }
    $("#why").textContent = Object.values(reasons).filter(Boolean).join(" ");
    all.checked = those.length > 0 && those.length === shown.length;
    all.indeterminate = those.length > 0 && those.length < shown.length;
  }

  async act(what) {
    const those = this.#chosen.filter((job) => what === "compare" || what === "none" || job.allowed_actions.includes(what));
    if (what === "none") this.ids.clear();
    else if (what === "compare") return location.assign(`/ui/compare?jobs=${[...this.ids].join(",")}`);
    else if (what === "cancel") announce(`${await onEach(those, (job) => call(`${job.urls.self}/cancel`, { method: "POST" }))} cancelled`, "good");
    else if (what === "delete" && (await confirmedDeletion(those, this.ids.size - those.length))) {
      announce(`${await onEach(those, (job) => call(job.urls.self, { method: "DELETE" }).then(() => this.#on.forget(job.id)))} deleted`, "good");
      this.ids.clear();
    }
    this.#on.draw();
    if (what === "cancel" || what === "delete") this.#on.renew();
  }
}
