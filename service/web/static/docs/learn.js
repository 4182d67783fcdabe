// The calibration of the reader's latest classifier; without one, or where it cannot be computed, that of the page.
import { $ } from "../common/dom.js";
import { call } from "../common/api.js";
import { showCalibration } from "../charts/calibration.js";
import { lazy } from "../job/lazy.js";

const root = $("#calibration");
const show = (response) => ($("[data-state]", root).textContent = showCalibration(root, response));
const bundled = JSON.parse($("#bundled-calibration").textContent);
lazy([root], {
  request: () => (root.dataset.address ? call(root.dataset.address) : bundled),
  show,
  fail: (error) => {
    show(bundled);
    $("[data-state]", root).textContent = `${error.message}. The plot is that of a classifier of digits.`;
  },
});
