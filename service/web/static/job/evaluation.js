// Calibration, column importance and residuals of the shown model.
import { $, h, metric, percent, svg } from "../common/dom.js";
import { ticks } from "../charts/scatter.js";
import { rowsTable } from "./confusion.js";
import { lazy } from "./lazy.js";
import { evaluate } from "./model.js";

const SIZE = 220;

export function wireEvaluation(job) {
  return [wire($("#calibration"), `${job.urls.self}/calibration`, showCalibration), wire($("#importance"), `${job.urls.self}/importance`, showImportance), wire($("#residuals"), `${job.urls.self}/residuals`, showResiduals)].flat();
}

function wire(root, address, show) {
  if (!root) return [];
  const state = $("[data-state]", root);
  return lazy([root], {
    request: () => evaluate(address),
    show: (response) => {
      $("[data-of]", root).textContent = response.label;
      state.textContent = show(root, response);
    },
    fail: (error) => (state.textContent = error.message),
  });
}

function showImportance(root, { columns, accuracy, rmse, rows }) {
  const amount = (value, digits) => (accuracy === null ? metric("val_rmse", value) : (100 * value).toFixed(digits));
  const sorted = [...columns].sort((a, b) => b.mean - a.mean);
  const largest = Math.max(...sorted.map(({ mean }) => Math.abs(mean)), 1e-9);
  $("[data-list]", root).replaceChildren(...sorted.map(({ column, mean, deviation }) => {
    const bar = h("span", { class: mean < 0 ? "bar against" : "bar" });
    bar.style.width = `${(100 * Math.abs(mean)) / largest}%`;
    return h("li", {}, h("span", { class: "label", title: column }, column), h("span", { class: "track" }, bar), h("span", { class: "number small", title: `standard deviation ${amount(deviation, 1)}` }, amount(mean, 1)));
  }));
  return `${accuracy === null ? "RMSE" : "Accuracy"} on ${rows.toLocaleString("en")} rows: ${accuracy === null ? metric("val_rmse", rmse) : percent(accuracy)}`;
}

function showCalibration(root, { bins, expected_error: error, validation_count: all }) {
  const [left, bottom, side] = [50, 34, SIZE];
  const x = (ratio) => left + ratio * side;
  const y = (ratio) => 8 + (1 - ratio) * side;
  const nonEmpty = bins.filter(({ count }) => count);
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  const text = (content, attributes) => svg("text", attributes, content);
  $("[data-plot]", root).replaceChildren(svg("svg", { class: "diagram", viewBox: `0 0 ${left + side + 14} ${side + bottom + 10}`, role: "img", "aria-label": nonEmpty.map((bin) => `confidence ${percent(bin.confidence)}: accuracy ${percent(bin.accuracy)}, ${bin.count} predictions`).join("; ") },
    ...ticks.map((tick) => svg("path", { class: "grid", d: `M${x(tick)} ${y(0)}V${y(1)}M${x(0)} ${y(tick)}H${x(1)}` })),
    ...ticks.map((tick) => text(`${100 * tick}%`, { x: x(tick), y: y(0) + 14, "text-anchor": "middle" })),
    ...ticks.map((tick) => text(`${100 * tick}%`, { x: left - 4, y: y(tick) + 3, "text-anchor": "end" })),
    text("accuracy", { transform: `translate(11 ${y(0.5)}) rotate(-90)`, "text-anchor": "middle" }),
    text("confidence", { x: x(0.5), y: y(0) + 28, "text-anchor": "middle" }),
    svg("path", { class: "ideal", d: `M${x(0)} ${y(0)}L${x(1)} ${y(1)}` }),
    svg("path", { class: "line", d: nonEmpty.map((bin, index) => `${index ? "L" : "M"}${x(bin.confidence)} ${y(bin.accuracy)}`).join("") }),
    ...nonEmpty.map((bin) => svg("circle", { cx: x(bin.confidence), cy: y(bin.accuracy), r: 2.5 + 5 * Math.sqrt(bin.count / all) }, svg("title", {}, `${bin.count} predictions: confidence ${percent(bin.confidence)}, accuracy ${percent(bin.accuracy)}`))),
  ));
  return `Confidence and accuracy differ by ${(100 * error).toFixed(1)} percentage points on average (expected calibration error).`;
}

function showResiduals(root, { points, target, worst, validation_count: all, label }) {
  const [left, bottom, side] = [58, 34, SIZE];
  const values = points.flat();
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = (high - low) * 0.03 || 1;
  const at = (value) => (value - low + room) / (high - low + 2 * room);
  const x = (value) => left + at(value) * side;
  const y = (value) => 8 + (1 - at(value)) * side;
  const marks = ticks(low, high, false, 4);
  const text = (content, attributes) => svg("text", attributes, content);
  const short = (value) => metric("val_rmse", value);
  $("[data-plot]", root).replaceChildren(svg("svg", { class: "diagram", viewBox: `0 0 ${left + side + 14} ${side + bottom + 10}`, role: "img", "aria-label": `predictions over targets of ${points.length} rows` },
    ...marks.map((mark) => svg("path", { class: "grid", d: `M${x(mark)} 8V${8 + side}M${left} ${y(mark)}H${left + side}` })),
    ...marks.map((mark) => text(short(mark), { x: x(mark), y: 8 + side + 14, "text-anchor": "middle" })),
    ...marks.map((mark) => text(short(mark), { x: left - 4, y: y(mark) + 3, "text-anchor": "end" })),
    text("prediction", { transform: `translate(9 ${8 + side / 2}) rotate(-90)`, "text-anchor": "middle" }),
    text(target, { x: left + side / 2, y: 8 + side + 28, "text-anchor": "middle" }),
    svg("path", { class: "ideal", d: `M${x(low)} ${y(low)}L${x(high)} ${y(high)}` }),
    ...points.map(([truth, prediction]) => svg("circle", { class: "dot", cx: x(truth), cy: y(prediction), r: 2.2 }, svg("title", {}, `${target} ${short(truth)}, predicted ${short(prediction)}`))),
  ));
  const rows = worst.map(({ row, target: truth, prediction }) => ({ row, cells: [truth, prediction, prediction - truth].map(short) }));
  const list = $("#worst");
  $("[data-of]", list).textContent = label;
  $("[data-list]", list).replaceChildren(rowsTable([target, "Predicted", "Error"], rows));
  return points.length < all ? `${points.length.toLocaleString("en")} of ${all.toLocaleString("en")} validation rows, evenly spaced.` : `${all.toLocaleString("en")} validation rows.`;
}
