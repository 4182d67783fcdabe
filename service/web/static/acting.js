// What is done to many jobs at once.
import { $, announce, counted } from "./dom.js";
import { pool } from "./api.js";
import { confirmed } from "./dialogs.js";

const AT_ONCE = 6; // requests

// Does something to each; tells of the first that was refused, and gives how many were not.
export async function onEach(those, act) {
  const refused = [];
  await pool(those, AT_ONCE, (job) => act(job).catch((error) => refused.push(error)));
  if (refused.length) announce(`${refused.length} refused: ${refused[0].message}`, "error");
  return those.length - refused.length;
}

// Asks a person before jobs are deleted; kept: how many of the selected cannot be.
export function confirmedDeletion(those, kept) {
  $("#confirm-title").textContent = `Delete ${counted(those.length, "job")}?`;
  $("#confirm-text").textContent = `This also deletes their checkpoints, samples and metrics, and cannot be undone.${kept ? ` ${kept} that have not ended are kept.` : ""}`;
  return confirmed($("#confirm"));
}
