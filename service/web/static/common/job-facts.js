// Texts about a job that several pages share.

const ENDED = new Set(["succeeded", "failed", "cancelled"]);

export const isOver = (job) => ENDED.has(job.status);
export const shortId = (id) => id.slice(-6).toLowerCase();
export const kindName = (kind) => (kind === "gan" ? "GAN" : kind);
export const titleOf = (job) => job.name || `${job.kind} ${shortId(job.id)}`;

// A job that its sweep stopped is not shown as cancelled.
export const statusText = (job) => (job.stopped_by_sweep ? "stopped by sweep" : job.status);
export const statusClass = (job) => `status ${job.stopped_by_sweep ? "stopped" : job.status}`;
