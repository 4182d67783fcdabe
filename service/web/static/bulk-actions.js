// Actions on several jobs at once.
import { $, announce, counted } from "./dom.js";
import { pool } from "./api.js";
import { confirmed } from "./dialogs.js";

const MAX_CONCURRENT_REQUESTS = 6;

// Applies an action to each job, announces the first refusal, and returns the number of successes.
export async function onEach(those, act) {
  const refused = [];
  await pool(those, MAX_CONCURRENT_REQUESTS, (job) => act(job).catch((error) => refused.push(error)));
  if (refused.length) announce(`${refused.length} refused: ${refused[0].message}`, "error");
  return those.length - refused.length;
}

// Asks for confirmation before jobs are deleted; kept: how many of the selected cannot be deleted.
export function confirmedDeletion(those, kept) {
  $("#confirm-title").textContent = `Delete ${counted(those.length, "job")}?`;
  $("#confirm-text").textContent = `This also deletes their checkpoints, samples and metrics, and cannot be undone.${kept ? ` ${kept} that have not ended are kept.` : ""}`;
  return confirmed($("#confirm"));
}
