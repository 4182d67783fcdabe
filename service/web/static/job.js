// The page of one job. Texts and tables are rendered by the server; curves, samples and progress update live.
import { $, $$, duration, throttle } from "./dom.js";
import { listen, onRestored } from "./api.js";
import { Curves } from "./curves.js";
import { Samples } from "./samples.js";
import { Split } from "./split.js";
import { view, viewAgain } from "./viewer.js";
import { wireMistakes } from "./mistakes.js";
import { openFork, wireActions } from "./actions.js";
import { copy } from "./dialogs.js";
import { wireBisection } from "./bisect.js";
import { wireConfusion } from "./confusion.js";
import { wireEvaluation } from "./evaluation.js";
import { refresh } from "./live.js";

const job = JSON.parse($("#job").textContent);
const renew = throttle(1200, () => job.isGone || refresh().catch(() => {})); // the service may be down: the stream reconnects by itself

const curves = new Curves($("#curves"), job.urls.metrics);
curves.resumed = job.resumed;
if (job.epoch) curves.load().catch(() => {});

const predicted = $("#predicted");
const samples = new Samples($("#samples"), job.samples, (epoch) => `${job.urls.self}/samples/${epoch}.png${predicted?.checked ? "?verdicts=true" : ""}`);
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

const mistakes = wireMistakes(job);
const evaluation = wireEvaluation(job);

let source = null;
let after = job.last_seq;

function listenToJob() {
  source?.close();
  const note = (news) => {
    if (news.seq) after = news.seq;
  };
  const change = (news) => {
    note(news);
    renew();
  };
  source = listen(() => `${job.urls.stream}?after=${after}`, {
    snapshot: () => {},
    progress: showProgress,
    metrics: (news) => {
      change(news);
      curves.add(news);
    },
    sample: (news) => {
      note(news);
      $("#samples").hidden = false;
      samples.add(news.epoch);
    },
    checkpoint: (news) => {
      change(news);
      $("#play-link").hidden = false;
      if (!news.best) return;
      mistakes.renew();
      evaluation.renew();
      curves.best(news.epoch);
    },
    status: (news) => {
      if (news.status !== "running") $("#eta").textContent = ""; // the last estimate is obsolete
      if (news.reason === "claimed" && news.epoch > 0) curves.resume(news.epoch);
      change(news);
    },
    health: (news) => {
      change(news);
      curves.finding(news);
    },
    log: change,
    end: (news) => {
      source.close();
      source = null;
      change(news);
    },
  });
}

function showProgress(now) {
  $("#progress").value = now.fraction;
  $("#epoch").textContent = `Epoch ${now.epoch} of ${now.epochs}`;
  $("#step").textContent = `batch ${now.step} of ${now.steps}`;
  $("#eta").textContent = now.eta_seconds === null ? "" : `${duration(now.eta_seconds)} left`;
}

// An ended job may be retried, which opens a stream again.
wireBisection(job, curves, (epoch) => openFork(job, epoch));
wireActions(job, renew, () => {
  if (source === null) listenToJob();
  renew();
});
wireConfusion(job);
document.addEventListener("click", ({ target }) => {
  // Event delegation: the section is replaced with each change of the job.
  if (target.closest("#mlflow-copy")) copy($("#mlflow").textContent, $("#mlflow"));
});
for (const button of $$("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
if (!job.over) listenToJob();
onRestored(renew);
