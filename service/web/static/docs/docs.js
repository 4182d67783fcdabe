// The API documentation: a filter, anchors that open their target, and a form that sends each operation's request.
import { call } from "../common/api.js";
import { confirmed, copy } from "../common/dialogs.js";
import { $, $$, debounce, h, kindOf } from "../common/dom.js";
import { data, Exchange } from "./try.js";

// Filter
const items = $$("[data-search]").map((element) => [element, element.dataset.search.toLowerCase()]);
const groups = $$("[data-group]");
const opened = new Map(groups.map((group) => [group, group.open]));
const searchField = $("#find");

function filter() {
  const words = searchField.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const [element, text] of items) {
    element.hidden = !words.every((word) => text.includes(word));
    if (!element.hidden) count += 1;
  }
  for (const group of groups) {
    const visibleCount = $$("[data-search]:not([hidden])", group).length;
    group.hidden = words.length > 0 && !visibleCount;
    group.open = words.length ? visibleCount > 0 : opened.get(group);
  }
  $("#found").textContent = words.length ? `${count} found` : "";
  const nothing = $("#nothing");
  if (nothing) nothing.hidden = count > 0;
}
searchField?.addEventListener("input", debounce(80, filter));

// Anchors
function reveal() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let element = target; element; element = element.parentElement) {
    if (element.tagName === "DETAILS") element.open = true;
  }
  target.scrollIntoView();
}
addEventListener("hashchange", reveal);
reveal();
document.addEventListener("click", (event) => {
  const summary = event.target.closest("details.operation > summary, .schemas summary");
  if (summary && !summary.parentElement.open) history.replaceState(null, "", `#${summary.parentElement.id}`);
});

// Suggests ids of this service's jobs and datasets.
let suggestions = null;
function suggestIds() {
  // If the service does not respond, the next form that is opened tries again.
  const callIfNeeded = (field, address) => $(`[data-in=path][name=${field}]`) && call(address);
  suggestions ??= Promise.all([callIfNeeded("job_id", "/jobs?limit=30"), callIfNeeded("name", "/datasets")]).then(
    ([jobs, datasets]) => {
      const knownJobs = jobs?.data ?? [];
      $("#known-job_id").replaceChildren(
        ...knownJobs.map((job) => h("option", { value: job.id }, job.name ?? job.kind)),
      );
      const knownDatasets = datasets?.data ?? [];
      $("#known-name").replaceChildren(...knownDatasets.map((item) => h("option", { value: item.name }, item.title)));
      const best = (jobs) =>
        jobs.find((job) => job.status === "succeeded") ?? jobs.find((job) => job.progress.epoch > 0) ?? jobs[0];
      if (!knownJobs.length) return;
      for (const field of $$("[data-in=path][name=job_id]")) {
        // Irreversible operations have no preselected job, and a field that the user has touched or focused is left
        // alone.
        if (field.dataset.touched || field === document.activeElement || data(field.form, "destructive")) continue;
        const verb = data(field.form, "path").split("/").at(-1);
        const suited = knownJobs.map((job) => [job, kindOf(job.kind)]).filter(([, kind]) => kind.verb === verb);
        field.value = (best(suited.filter(([, kind]) => kind.trains).map(([job]) => job)) ?? best(knownJobs)).id;
        field.form.dispatchEvent(new Event("input"));
      }
    },
  ).catch(() => (suggestions = null));
}

// Requests
for (const form of $$("form.try")) {
  const exchange = new Exchange(form);
  const show = () => {
    $("[data-curl]", form).textContent = exchange.curl();
  };
  form.closest("details").addEventListener("toggle", () => {
    show();
    suggestIds();
  });
  form.addEventListener("input", ({ target }) => {
    if (target.dataset) target.dataset.touched = "yes";
    show();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (data(form, "destructive") && !(await confirmOperation(form, exchange))) return;
    exchange.send();
  });
  $("[data-stop]", form).addEventListener("click", () => exchange.stop());
  $("[data-copy]", form).addEventListener("click", () => copy(exchange.curl(), $("[data-curl]", form)));
  for (const button of $$("[data-example]", form)) {
    button.addEventListener("click", () => {
      $("[name=body]", form).value = button.dataset.example;
      show();
    });
  }
  show();
}

function confirmOperation(form, exchange) {
  $("#confirm-title").textContent = `${data(form, "destructive")}?`;
  $("#confirm-what").textContent = `${data(form, "method")} ${exchange.path()}`;
  return confirmed($("#confirm"));
}
