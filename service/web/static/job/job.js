// The page of one job. Texts and tables are rendered by the server; curves, samples and progress update live.
import { $, $$, duration, throttle } from "../common/dom.js";
import { listen, onRestored } from "../common/api.js";
import { Curves } from "../charts/curves.js";
import { Samples } from "./samples.js";
import { Split } from "./split.js";
import { view, viewAgain } from "./viewer.js";
import { wireMistakes } from "./mistakes.js";
import { openFork, wireActions } from "./actions.js";
import { copy } from "../common/dialogs.js";
import { wireBisection } from "./bisect.js";
import { wireConfusion } from "./confusion.js";
import { wireEvaluation } from "./evaluation.js";
import { isStored, shownModel, wireModel } from "./model.js";
import { refresh } from "../common/live.js";

const job = JSON.parse($("#job").textContent);
const refreshPage = throttle(1200, () => job.isGone || update(stream === null).catch(() => {})); // the service may be down; the stream then reconnects by itself

const curves = new Curves($("#curves"), job.urls.metrics);
curves.resumed = job.resumed;
if (job.epoch) curves.load().catch(() => {});

const predicted = $("#predicted");
const samples = new Samples($("#samples"), job.samples, (epoch) => `${job.urls.self}/samples/${epoch}.png${predicted?.checked ? "?predicted_labels=true" : ""}`);
for (const image of $$("#samples img")) {
  image.addEventListener("load", () => image.classList.toggle("scaled-down", image.naturalWidth > image.clientWidth));
}
const split = new Split($("#two-epochs"), samples);
const largeSamples = {
  count: () => samples.epochs.length,
  at: (index) => {
    const epoch = samples.epochs[index];
    return { src: samples.find(epoch), title: `Samples, epoch ${epoch}`, about: `Epoch ${epoch} of ${samples.epochs.at(-1)}`, file: `samples-epoch-${epoch}.png` };
  },
};
samples.listeners.push(() => {
  viewAgain(largeSamples, samples.at);
  split.show();
});
predicted?.addEventListener("change", () => samples.again());
$("#sample-large").addEventListener("click", () => {
  samples.stop();
  view(largeSamples, samples.at, (index) => samples.show(index));
});
$("#compare-epochs").addEventListener("click", ({ currentTarget: button }) => {
  const isOpen = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(isOpen));
  $("#one-epoch").hidden = isOpen;
  samples.stop();
  if (isOpen) split.open();
  else split.close();
});

const evaluations = [...wireMistakes(job), ...wireEvaluation(job)];
let evaluated = shownModel();

// Refreshes the page, and the evaluations if it shows another model: now, or at a limited rate.
async function update(isNow = true) {
  await refresh();
  if (isStored() && evaluated !== shownModel()) {
    evaluated = shownModel();
    for (const evaluation of evaluations) evaluation.invalidate();
  }
  if (isNow) for (const evaluation of evaluations) evaluation.loadIfNeeded();
}

let stream = null;
let progressed = false;
let lastSeq = job.last_seq;

function listenToJob() {
  stream?.close();
  const recordSeq = (event) => {
    if (event.seq) lastSeq = event.seq;
  };
  const change = (event) => {
    recordSeq(event);
    refreshPage();
  };
  stream = listen(() => `${job.urls.stream}?after=${lastSeq}`, {
    snapshot: () => {},
    progress: showProgress,
    metrics: (event) => {
      change(event);
      curves.add(event);
    },
    sample: (event) => {
      recordSeq(event);
      $("#samples").hidden = false;
      samples.add(event.epoch);
    },
    checkpoint: (event) => {
      change(event);
      if (event.best) curves.best(event.epoch);
    },
    status: (event) => {
      if (event.status !== "running") $("#eta").textContent = ""; // the last estimate is obsolete
      if (event.reason === "claimed" && event.epoch > 0) curves.resume(event.epoch);
      change(event);
    },
    health: (event) => {
      change(event);
      curves.finding(event);
    },
    log: change,
    end: (event) => {
      stream.close();
      stream = null;
      change(event);
    },
  });
}

function showProgress(progress) {
  progressed = true;
  $("#progress").value = progress.fraction;
  $("#epoch").textContent = `Epoch ${progress.epoch} of ${progress.epochs}`;
  $("#step").textContent = `batch ${progress.step} of ${progress.steps}`;
  $("#eta").textContent = progress.eta_seconds === null ? "" : `${duration(progress.eta_seconds)} left`;
}

// A job that has ended can be retried; then the stream is reopened.
wireBisection(job, curves, (epoch) => openFork(job, epoch));
wireActions(job, refreshPage, () => {
  if (stream === null) listenToJob();
  refreshPage();
});
wireConfusion(job);
wireModel(update);
document.addEventListener("click", ({ target }) => {
  // Event delegation, because the section is replaced whenever the job changes.
  if (target.closest("#mlflow-copy")) copy($("#mlflow").textContent, $("#mlflow"));
});
for (const button of $$("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
if (!job.over) listenToJob();
onRestored(refreshPage);
// A job that makes no progress has no events: the page says why.
setInterval(() => {
  if (stream && !progressed && !document.hidden) refreshPage();
  progressed = false;
}, 10_000);
