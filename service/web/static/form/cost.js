// Whether a spec is valid, and its estimated cost.
import { $, bytes, counted, duration, h } from "../common/dom.js";

const UNKNOWN = "–";

// plan: the estimate of a job; sweep: that of a sweep of such jobs, null for a single job.
export function showPlan(plan, sweep = null) {
  verdict(
    sweep ? `Ready to start: ${counted(sweep.trials, "trial")}, ${counted(sweep.jobs, "job")}` : "Ready to start",
    "good",
  );
  facts(plan, sweep);
  notes([...(sweep?.notes ?? []), ...(plan?.notes ?? [])]);
  $("#start").disabled = false;
}

export function showFault(text) {
  verdict(text, "error");
  facts(null);
  notes([]);
  $("#start").disabled = true;
}

function verdict(text, kind) {
  $("#verdict").textContent = text;
  $("#verdict").className = `note ${kind}`;
}

// The rows are always present, so that the layout below does not shift.
function facts(plan, sweep = null) {
  const rows = {
    ...(sweep && { "Epochs of all jobs": `at most ${sweep.epochs.toLocaleString("en")}` }),
    [sweep ? "Time of all jobs, one at a time" : "Estimated time"]: plan
      ? timeOf(sweep ? ofAllJobs(plan, sweep) : plan)
      : UNKNOWN,
    Parameters: plan ? plan.parameters.toLocaleString("en") : UNKNOWN,
    "Training steps": plan ? plan.steps.toLocaleString("en") : UNKNOWN,
    "Peak memory": plan ? bytes(plan.estimated_bytes) : UNKNOWN,
    "Checkpoint size": plan ? bytes(plan.checkpoint_bytes) : UNKNOWN,
    [sweep ? "Files of a job" : "Files"]: plan ? `at most ${bytes(plan.expected_bytes)}` : UNKNOWN,
  };
  $("#cost").replaceChildren(
    ...Object.entries(rows).flatMap((
      [name, value],
    ) => [
      h("dt", {}, name),
      h("dd", /time/i.test(name) && plan?.estimate_basis ? { title: `Based on: ${plan.estimate_basis}` } : {}, value),
    ]),
  );
}

function notes(texts) {
  $("#cost-notes").hidden = texts.length === 0;
  $("#cost-notes").replaceChildren(...texts.map((text) => h("li", {}, typeof text === "string" ? text : text.detail)));
}

// The times of a job, for the epochs of all jobs of a sweep.
function ofAllJobs(plan, sweep) {
  const factor = sweep.epochs / plan.resolved.epochs;
  return Object.fromEntries(
    Object.entries(plan).filter(([name]) => name.startsWith("estimated_seconds")).map((
      [name, seconds],
    ) => [name, seconds === null ? null : seconds * factor]),
  );
}

function timeOf(
  { estimated_seconds: seconds, estimated_seconds_low: low = null, estimated_seconds_high: high = null },
) {
  if (low !== null && high !== null) {
    const [from, to] = [duration(low), duration(high)];
    if (from === to) return low < 0.95 ? from : `about ${from}`;
    if (low < 0.95) return `up to ${to}`;
    const unit = (text) => text.split(" ").slice(1).join(" ");
    return unit(from) === unit(to) && /^[\d.]+ /.test(from) ? `${from.split(" ")[0]} to ${to}` : `${from} to ${to}`;
  }
  return seconds > 0 && seconds < 0.95 ? duration(seconds) : `about ${duration(seconds)}`;
}
