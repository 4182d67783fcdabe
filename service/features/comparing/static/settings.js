// The table of the compared jobs' settings.
import { $, describe, h, metric, when } from "../common/dom.js";

// Flattens a document to rows of dotted path and value.
function flatten(document, pointer = "") {
  if (typeof document !== "object" || document === null) return [[pointer, document]];
  const entries = Object.entries(document);
  return entries.length
    ? entries.flatMap(([name, part]) => flatten(part, pointer ? `${pointer}.${name}` : name))
    : [[pointer, Array.isArray(document) ? "[]" : "{}"]];
}

function show(value) {
  if (value === undefined) return "–";
  if (typeof value === "number") return String(Number(value.toPrecision(6)));
  return value === null ? "none" : String(value);
}

export class Settings {
  constructor(jobs) {
    this.lines = new Map(
      jobs.map((job) => [job.id, new Map(flatten({ ...job.resolved, name: undefined, tags: job.tags.join(", ") }))]),
    );
    this.names = [...new Set([...this.lines.values()].flatMap((line) => [...line.keys()]))].filter((name) =>
      name !== "name"
    );
    this.differing = this.names.filter((name) => new Set(jobs.map((job) => show(this.of(job, name)))).size > 1);
  }

  of(job, name) {
    return this.lines.get(job.id).get(name);
  }
}

// Replaces only what has changed, so that the element under the pointer stays.
export function replaceIfChanged(element, children) {
  const next = element.cloneNode(false);
  next.append(...children);
  if (!next.isEqualNode(element)) element.replaceChildren(...next.childNodes);
}

// A value, with its 95% interval unless a better one has arrived since.
function withInterval(job, name, value) {
  const interval = job.best_intervals[name];
  return [
    metric(name, value),
    interval && interval.value === value ? h("span", { class: "small muted" }, ` ${interval.text}`) : "",
  ];
}

// jobs: in display order. best: [{ name, values: Map of id to value, top: id }]
// A few jobs are columns, side by side; many are rows (`byRow`). The first column stays in view.
export function drawSettings(settings, jobs, best, { byRow, identical, heading }) {
  const names = identical ? settings.names : settings.differing;
  const facts = [
    { head: "created", cells: jobs.map((job) => when(job.created_at)) },
    ...best.map(({ name, values, top }) => ({
      head: `best ${describe(name).label}`,
      cells: jobs.map((job) => withInterval(job, name, values.get(job.id))),
      isBest: (job) => top !== undefined && values.get(job.id) === values.get(top),
    })),
    ...names.map((name) => ({ head: h("code", {}, name), cells: jobs.map((job) => show(settings.of(job, name))) })),
  ];
  const cell = (fact, index) =>
    h("td", { class: fact.isBest?.(jobs[index]) ? "best-value" : null, "data-job": jobs[index].id }, fact.cells[index]);
  const [head, body] = ["thead", "tbody"].map((part) => $(`#differences ${part}`));
  if (byRow) {
    replaceIfChanged(head, [
      h("tr", {}, h("th", { scope: "col" }, "Job"), facts.map((fact) => h("th", { scope: "col" }, fact.head))),
    ]);
    replaceIfChanged(
      body,
      jobs.map((job, index) =>
        h("tr", { "data-job": job.id }, h("th", { scope: "row" }, heading(job)), facts.map((fact) => cell(fact, index)))
      ),
    );
  } else {
    replaceIfChanged(head, [
      h(
        "tr",
        {},
        h("th", { scope: "col" }, "Setting"),
        jobs.map((job) => h("th", { scope: "col", "data-job": job.id }, heading(job))),
      ),
    ]);
    replaceIfChanged(
      body,
      facts.map((fact) => h("tr", {}, h("th", { scope: "row" }, fact.head), jobs.map((_, index) => cell(fact, index)))),
    );
  }
  $("#same").hidden = settings.differing.length > 0;
}
