// Actions on several jobs at once.
import { $, announce, counted } from "../common/dom.js";
import { pool } from "../common/api.js";
import { confirmed } from "../common/dialogs.js";

const MAX_CONCURRENT_REQUESTS = 6;

// Applies an action to each job, announces the first refusal, and returns the number of successes.
export async function onEach(jobs, act) {
  const refused = [];
  await pool(jobs, MAX_CONCURRENT_REQUESTS, (job) => act(job).catch((error) => refused.push(error)));
  if (refused.length) announce(`${refused.length} refused: ${refused[0].message}`, "error");
  return jobs.length - refused.length;
}

// Asks for confirmation before jobs are deleted; keptCount: how many of the selected jobs cannot be deleted.
export function confirmedDeletion(jobs, keptCount) {
  $("#confirm-title").textContent = `Delete ${counted(jobs.length, "job")}?`;
  $("#confirm-text").textContent = `This also deletes their checkpoints, samples and metrics, and cannot be undone.${keptCount ? ` ${keptCount} that have not ended are kept.` : ""}`;
  return confirmed($("#confirm"));
}
