// Formats the value of a column by the column's type.
import { ago, bytes, capital, describe, duration, h, keyMetrics, metric, when } from "../common/dom.js";

const WIDTHS = {
  status: 9,
  progress: 11,
  metrics: 15,
  created_at: 8,
  text: 6.5,
  number: 5,
  metric: 6,
  seconds: 5.5,
  bytes: 6,
  time: 7.5,
  flag: 5,
  job: 5.5,
  json: 11,
};

// Width in rem: that of the widest value or of the longest part of the heading.
export function widthOf(column) {
  const longestPart = Math.max(...headingOf(column).split(/[._/ ]/).map((word) => word.length));
  return WIDTHS[column.name] ?? Math.max(WIDTHS[column.type] ?? 8, 2.2 + 0.5 * longestPart);
}

// Facts are capitalized like headings; settings and metrics keep their names.
export function headingOf(column) {
  const isName = column.metric !== null || column.name.includes(".") || column.name.startsWith("/") ||
    column.label.includes("_");
  return isName ? column.label : capital(column.label);
}

// Both losses would displace a second kind of metric.
const summaryNames = () => keyMetrics().filter((name) => name !== "val_loss");
const isOfTraining = (name) => name.startsWith("train_");
const summaryOf = (metrics) =>
  summaryNames().filter((name) => name in metrics).sort((a, b) => isOfTraining(a) - isOfTraining(b)).slice(0, 2);

// The columns of a CSV file with the table's content: no bars, and one column for each metric.
export function csvColumns(columns, jobs) {
  const metrics = summaryNames().filter((name) => jobs.some((job) => summaryOf(job.metrics).includes(name)));
  const replacements = { progress: ["epoch", "epochs"], metrics };
  return [...new Set(columns.flatMap((name) => replacements[name] ?? [name]))];
}

export function text(column, value) {
  if (value === null || value === undefined || value === "") return "–";
  switch (column.type) {
    case "metric":
      return metric(column.metric, value);
    case "number":
      if (column.percent) return `${Math.round(100 * value)}%`;
      return Number.isInteger(value) ? String(value) : Number(value.toPrecision(6)).toString();
    case "seconds":
      return duration(value);
    case "bytes":
      return bytes(value);
    case "time":
      return ago(value);
    case "flag":
      return value ? "yes" : "no";
    case "json":
      return Array.isArray(value) && value.every((item) => typeof item !== "object")
        ? value.join(", ") || "–"
        : JSON.stringify(value);
    default:
      return column.name === "spec" || column.name === "result_digest"
        ? String(value).replace("sha256:", "").slice(0, 10)
        : String(value);
  }
}

// The unabridged value, for a tooltip.
export function fullText(column, value) {
  if (value === null || value === undefined) return "";
  if (column.type === "time") return when(value);
  if (column.type === "metric" || column.type === "seconds") return String(value);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

// The number of examples of an accuracy if they are few, and its interval, unless a newer value has arrived.
export function summary({ metrics, intervals = {} }) {
  return summaryOf(metrics).flatMap((name) => {
    const interval = intervals[name];
    const few = interval?.n && interval.n < 1000 ? h("span", { class: "muted" }, ` of ${interval.n}`) : null;
    return [
      h("span", { class: "muted" }, describe(name).label),
      h("span", { title: interval?.value === metrics[name] ? interval?.text : null }, metric(name, metrics[name]), few),
    ];
  });
}

// The best loaded value of each column that has a goal; null if all are equal.
export function bestOf(columns, jobs) {
  const best = {};
  for (const { name, goal } of columns) {
    if (!goal) continue;
    const values = jobs.map((job) => job.columns[name]).filter((value) => typeof value === "number");
    const [low, high] = values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [
      Infinity,
      -Infinity,
    ]);
    best[name] = low < high ? (goal === "maximize" ? high : low) : null;
  }
  return best;
}

// A job's columns after an epoch event of the stream.
export function afterEpoch(columns, values, metrics) {
  const updated = { ...values };
  for (const { name, type, metric: base, goal } of columns) {
    if (name === "metrics") updated[name] = metrics;
    if (type !== "metric" || typeof metrics[base] !== "number") continue;
    const aggregate = name.includes(":") ? name.split(":")[0] : "last";
    const keepsMinimum = aggregate === "min" || (aggregate === "best" && goal === "minimize");
    if (aggregate === "last" || typeof values[name] !== "number") updated[name] = metrics[base];
    else updated[name] = keepsMinimum ? Math.min(values[name], metrics[base]) : Math.max(values[name], metrics[base]);
  }
  return updated;
}
