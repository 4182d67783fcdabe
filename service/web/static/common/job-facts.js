// Texts about a job that several pages share.
import { kindOf } from "./dom.js";

const ENDED = new Set(["succeeded", "failed", "cancelled"]);

export const isOver = (job) => ENDED.has(job.status);
export const shortId = (id) => id.slice(-6).toLowerCase();
export const kindName = (kind) => kindOf(kind).title;
export const titleOf = (job) => job.name || `${job.kind} ${shortId(job.id)}`;

// A job that its sweep stopped is not shown as cancelled.
export const statusText = (job) => (job.stopped_by_sweep ? "stopped by sweep" : job.status);
export const statusClass = (job) => `status ${job.stopped_by_sweep ? "stopped" : job.status}`;

// The options of a choice of checkpoints, the newest first.
export function checkpointOptions(checkpoints) {
  return checkpoints.toReversed().map((item) => {
    const labels = [item.best && "best", item.latest && "latest"].filter(Boolean).join(", ");
    return new Option(`epoch ${item.epoch}${labels ? ` (${labels})` : ""}`, item.epoch);
  });
}
