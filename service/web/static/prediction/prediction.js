// The page of a prediction. Its progress follows its events; everything else is rendered by the server, and fetched
// again when the state of the job changes.
import { $, $$, duration, throttle } from "../common/dom.js";
import { listen, onRestored } from "../common/api.js";
import { refresh } from "../common/live.js";
import { wireActions } from "../job/actions.js";

const job = JSON.parse($("#job").textContent);
// The service may be down; the stream then reconnects by itself.
const refreshPage = throttle(1200, () => job.isGone || refresh().catch(() => {}));

let stream = null;
let progressed = false;
let lastSeq = job.last_seq;

function listenToJob() {
  stream?.close();
  const change = (event) => {
    if (event.seq) lastSeq = event.seq;
    refreshPage();
  };
  stream = listen(() => `${job.urls.stream}?after=${lastSeq}`, {
    snapshot: () => {},
    progress: showProgress,
    status: (event) => {
      if (event.status !== "running") $("#eta").textContent = ""; // the last estimate is obsolete
      change(event);
    },
    log: change,
    end: (event) => {
      stream.close();
      stream = null;
      change(event);
    },
  });
}

const grouped = (count) => count.toLocaleString("en");
const examplesDone = ({ step, steps }) =>
  `${grouped(step)} of ${grouped(steps)} ${job.is_table ? "row" : "image"}${steps === 1 ? "" : "s"}`;

function showProgress(progress) {
  progressed = true;
  $("#progress").value = progress.fraction;
  $("#step").textContent = examplesDone(progress);
  $("#eta").textContent = progress.eta_seconds === null ? "" : `${duration(progress.eta_seconds)} left`;
}

// A job that has ended can be retried; then the stream is reopened.
wireActions(job, refreshPage, () => {
  if (stream === null) listenToJob();
  refreshPage();
});
for (const button of $$("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
if (!job.over) listenToJob();
onRestored(refreshPage);
// A queued job, or one whose worker is lost, has no events: the page says why.
setInterval(() => {
  if (stream && !progressed && !document.hidden && $("#status .queued, #status .running")) refreshPage();
  progressed = false;
}, 10_000);
