// The jobs selected in the list, and the actions on them.
import { $, announce, counted } from "../common/dom.js";
import { call, pool } from "../common/api.js";
import { confirmed } from "../common/dialogs.js";

export const MAX_COMPARED = 200; // maximum number of jobs in a comparison
const MAX_CONCURRENT_REQUESTS = 6;

export class SelectedJobs {
  ids = new Set();
  #jobs;
  #on;
  #last = null;

  // jobs: a map by id. on: shown() returns the ids of the rows in order; draw(), forget(id) and refresh() update the
  // page.
  constructor(jobs, on) {
    this.#jobs = jobs;
    this.#on = on;
    $("#selection").addEventListener("click", (event) => {
      const action = event.target.closest("button")?.dataset.do;
      if (action) this.act(action);
    });
  }

  get #chosen() {
    return [...this.ids].map((id) => this.#jobs.get(id));
  }

  // Toggles a job, or the range from the previously toggled job to this one.
  toggle(id, isRange) {
    const ids = this.#on.shown();
    if (!ids.includes(id)) return; // removed, but still displayed until the end of a press
    const isSelected = !this.ids.has(id);
    const [from, to] = [ids.indexOf(isRange && this.#last ? this.#last : id), ids.indexOf(id)].sort((a, b) => a - b);
    for (const item of ids.slice(Math.max(from, 0), to + 1)) isSelected ? this.ids.add(item) : this.ids.delete(item);
    this.#last = id;
    this.#on.draw();
  }

  toggleAll(on) {
    for (const id of this.#on.shown()) on ? this.ids.add(id) : this.ids.delete(id);
    this.#on.draw();
  }

  // The bar of actions, with a reason for each disabled one, and the select-all check box.
  draw(shownIds, all) {
    for (const id of this.ids) if (!shownIds.includes(id)) this.ids.delete(id);
    const chosen = this.#chosen;
    const isAllowed = (action) => chosen.some((job) => job.allowed_actions.includes(action));
    const reasons = {
      compare: chosen.length < 2
        ? "Select at least two jobs to compare."
        : chosen.length > MAX_COMPARED
        ? `At most ${MAX_COMPARED} jobs can be compared.`
        : "",
      cancel: isAllowed("cancel") ? "" : "Nothing to cancel: all have ended.",
      delete: isAllowed("delete") ? "" : "Nothing to delete: only jobs that have ended can be.",
    };
    $("#selection").hidden = chosen.length === 0;
    $("#selection strong").textContent = `${chosen.length} selected`;
    for (const [action, reason] of Object.entries(reasons)) {
      $(`[data-do="${action}"]`).disabled = reason !== "";
      $(`[data-do="${action}"]`).title = reason;
    }
    $("#why").textContent = Object.values(reasons).filter(Boolean).join(" ");
    all.checked = chosen.length > 0 && chosen.length === shownIds.length;
    all.indeterminate = chosen.length > 0 && chosen.length < shownIds.length;
  }

  async act(action) {
    const chosen = this.#chosen.filter((job) =>
      action === "compare" || action === "none" || job.allowed_actions.includes(action)
    );
    if (action === "none") this.ids.clear();
    else if (action === "compare") return location.assign(`/ui/compare?jobs=${[...this.ids].join(",")}`);
    else if (action === "cancel") {
      announce(
        `${await onEach(chosen, (job) => call(`${job.urls.self}/cancel`, { method: "POST" }))} cancelled`,
        "good",
      );
    } else if (action === "delete" && (await confirmedDeletion(chosen, this.ids.size - chosen.length))) {
      announce(
        `${await onEach(
          chosen,
          (job) => call(job.urls.self, { method: "DELETE" }).then(() => this.#on.forget(job.id)),
        )} deleted`,
        "good",
      );
      this.ids.clear();
    }
    this.#on.draw();
    if (action === "cancel" || action === "delete") this.#on.refresh();
  }
}

// Applies an action to each job, announces the first refusal, and returns the number of successes.
async function onEach(jobs, act) {
  const refused = [];
  await pool(jobs, MAX_CONCURRENT_REQUESTS, (job) => act(job).catch((error) => refused.push(error)));
  if (refused.length) announce(`${refused.length} refused: ${refused[0].message}`, "error");
  return jobs.length - refused.length;
}

// Asks for confirmation before jobs are deleted; keptCount: how many of the selected jobs cannot be deleted.
function confirmedDeletion(jobs, keptCount) {
  $("#confirm-title").textContent = `Delete ${counted(jobs.length, "job")}?`;
  $("#confirm-text").textContent = `This also deletes their checkpoints, samples and metrics, and cannot be undone.${
    keptCount ? ` ${keptCount} that have not ended are kept.` : ""
  }`;
  return confirmed($("#confirm"));
}
