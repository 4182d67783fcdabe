// What is done to many jobs at once.
import { $, announce } from "./dom.js";

const AT_ONCE = 6; // requests

// Does something to each; tells of the first that was refused, and gives how many were not.
export async function onEach(those, act) {
  const waiting = [...those];
  const refused = [];
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (let job = waiting.shift(); job; job = waiting.shift()) await act(job).catch((error) => refused.push(error));
    }),
  );
  if (refused.length) announce(`${refused.length} refused: ${refused[0].message}`, "error");
  return those.length - refused.length;
}

// Asks a person before jobs are deleted; kept: how many of the selected cannot be.
export function confirmed(those, kept) {
  const dialog = $("#confirm");
  $("#confirm-title").textContent = `Delete ${those.length} ${those.length === 1 ? "job" : "jobs"}?`;
  $("#confirm-text").textContent = `This also deletes their checkpoints, samples and metrics, and cannot be undone.${kept ? ` ${kept} that have not ended are kept.` : ""}`;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}
