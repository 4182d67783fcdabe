// The page of one job. Curves, tiles, samples and progress follow its events. Texts and tables are rendered by the
// server, and fetched again when the state of the job changes, or when another model is stored and they are in view.
import { $, $$, duration, kindOf, throttle } from "../common/dom.js";
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
import { isStored, moveModel, shownModel, showTiles, wireModel } from "./model.js";
import { lazy } from "./lazy.js";
import { refresh } from "../common/live.js";

const job = JSON.parse($("#job").textContent);
// The service may be down; the stream then reconnects by itself.
const refreshPage = throttle(1200, () => job.isGone || update(stream === null).catch(() => {}));

const curves = new Curves($("#curves"), job.urls.metrics, (table) => showTiles(table, job));
curves.resumed = job.resumed;
if (job.epoch) curves.load().catch(() => {});

const predicted = $("#predicted");
const samples = new Samples(
  $("#samples"),
  job.samples,
  (epoch) => `${job.urls.self}/samples/${epoch}.png${predicted?.checked ? "?predicted_labels=true" : ""}`,
);
for (const image of $$("#samples img")) {
  image.addEventListener("load", () => image.classList.toggle("scaled-down", image.naturalWidth > image.clientWidth));
}
const split = new Split($("#two-epochs"), samples);
const largeSamples = {
  count: () => samples.epochs.length,
  at: (index) => {
    const epoch = samples.epochs[index];
    return {
      src: samples.find(epoch),
      title: `Samples, epoch ${epoch}`,
      about: `Epoch ${epoch} of ${samples.epochs.at(-1)}`,
      file: `samples-epoch-${epoch}.png`,
    };
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
const partsOf = (what) => lazy($$(`[data-live=${what}]`), { request: refreshPage, isStale: false });
const parts = { model: partsOf("model"), epoch: partsOf("epoch") };

// Fetches the parts of the page, and the evaluations of another model: now, or at a limited rate.
async function update(isNow = true) {
  await refresh();
  const pageSeq = Number($("#model").dataset.seq); // events may have come since
  if (pageSeq < lastChange) refreshPage();
  stored = stored.filter(({ seq }) => seq > pageSeq);
  stored.forEach(moveModel);
  if (curves.table) showTiles(curves.table, job);
  evaluateAgain();
  if (isNow) { for (const evaluation of evaluations) evaluation.loadIfNeeded(); }
}

function evaluateAgain() {
  if (!isStored() || evaluated === shownModel()) return;
  evaluated = shownModel();
  if (stream === null) samplesOfModel();
  for (const section of $$("[data-evaluated]")) section.hidden = false;
  for (const evaluation of evaluations) evaluation.invalidate();
}

// While a job is running, the samples are the last ones.
function samplesOfModel() {
  if (!isStored()) return;
  samples.stop();
  samples.showEpoch(Number($("#model").dataset.epoch));
}

let stream = null;
let progressed = false;
let lastSeq = job.last_seq;
let lastChange = 0; // the last event that the server renders
let stored = []; // events of checkpoints that the page may not have

function listenToJob() {
  stream?.close();
  const recordSeq = (event) => {
    if (event.seq) lastSeq = event.seq;
  };
  const change = (event) => {
    recordSeq(event);
    lastChange = Math.max(lastChange, event.seq);
    refreshPage();
  };
  stream = listen(() => `${job.urls.stream}?after=${lastSeq}`, {
    snapshot: () => {},
    progress: showProgress,
    metrics: (event) => {
      recordSeq(event);
      curves.add(event);
      if (job.tiles.some((name) => name in event.values && !$(`[data-metric=${name}]`))) refreshPage(); // a new tile
      parts.epoch.invalidate();
    },
    sample: (event) => {
      recordSeq(event);
      if (job.hides_samples) return;
      $("#samples").hidden = false;
      samples.add(event.epoch);
    },
    checkpoint: (event) => {
      recordSeq(event);
      if (event.best) curves.best(event.epoch);
      stored.push(event);
      // The first one, or the first best one.
      if (!isStored() || (event.best && $("#model").hidden && kindOf(job.kind).shows_best)) return refreshPage();
      moveModel(event);
      if (evaluated !== shownModel()) parts.model.invalidate();
      return evaluateAgain();
    },
    status: (event) => {
      if (event.status !== "running") $("#eta").textContent = ""; // the last estimate is obsolete
      if (event.reason === "claimed" && event.epoch > 0) curves.resume(event.epoch);
      change(event);
    },
    health: (event) => {
      change(event);
      curves.reload();
    },
    log: change,
    end: (event) => {
      stream.close();
      stream = null;
      samplesOfModel();
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
  // Event delegation, because the content of the section is replaced.
  if (target.closest("#mlflow-copy")) copy($("#mlflow").textContent, $("#mlflow"));
});
// Exports are followed as links: the policy of the page forbids forms that end at another host, such as an object
// store.
document.addEventListener("submit", (event) => {
  if (!event.target.closest("#export")) return;
  event.preventDefault();
  location.assign(`${event.submitter.formAction}?${new URLSearchParams(new FormData(event.target))}`);
});
for (const button of $$("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
if (job.over) samplesOfModel();
else listenToJob();
onRestored(refreshPage);
// A queued job, or one whose worker is lost, has no events: the page says why.
setInterval(() => {
  if (stream && !progressed && !document.hidden && $("#status .queued, #status .running")) refreshPage();
  progressed = false;
}, 10_000);
