// Calibration, column importance and residuals of the shown model.
import { showCalibration } from "../charts/calibration.js";
import { showResiduals } from "../charts/residuals.js";
import { $, h, metric, percent } from "../common/dom.js";
import { rowsTable } from "./confusion.js";
import { lazy } from "./lazy.js";
import { evaluate } from "./model.js";

export function wireEvaluation(job) {
  return [
    wire($("#calibration"), `${job.urls.self}/calibration`, showCalibration),
    wire($("#importance"), `${job.urls.self}/importance`, showImportance),
    wire($("#residuals"), `${job.urls.self}/residuals`, showPredictions),
  ].flat();
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
    return h(
      "li",
      {},
      h("span", { class: "label", title: column }, column),
      h("span", { class: "track" }, bar),
      h("span", { class: "number small", title: `standard deviation ${amount(deviation, 1)}` }, amount(mean, 1)),
    );
  }));
  return `${accuracy === null ? "RMSE" : "Accuracy"} on ${rows.toLocaleString("en")} rows: ${
    accuracy === null ? metric("val_rmse", rmse) : percent(accuracy)
  }`;
}

function showPredictions(root, response) {
  const { target, worst, label } = response;
  const isGrouped = worst.some((row) => Math.abs(row.target) >= 1e4 && Math.abs(row.target) < 1e7);
  const text = (value) => (isGrouped ? Math.round(value).toLocaleString("en") : metric("val_rmse", value));
  const rows = worst.map(({ index, row, target: truth, prediction }) => ({
    row,
    cells: [index + 1, ...[truth, prediction, truth - prediction].map(text)],
  }));
  $("#worst [data-of]").textContent = label;
  $("#worst [data-list]").replaceChildren(rowsTable(["Row", target, "Predicted", "Residual"], rows, true));
  return showResiduals(root, response);
}
