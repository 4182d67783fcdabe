// Parts of the Play pages: the bars of a prediction, and the slider through a job's checkpoints.
import { $, $$, percent } from "../common/dom.js";

// One bar for each class, with its probability.
export function barsOf(list) {
  const rows = $$("li", list);
  // Without probabilities, the bars are empty.
  return function show(shares = null, winner = null) {
    rows.forEach((row, index) => {
      row.classList.toggle("winner", index === winner);
      $(".bar", row).style.transform = `scaleX(${shares ? shares[index] : 0})`;
      $(".probability", row).textContent = shares ? percent(shares[index]) : "–";
    });
  };
}

// Returns a function for the epoch of the selected checkpoint.
export function wireCheckpoints(job, onchange) {
  const slider = $("#checkpoint");
  const show = () => {
    const item = job.checkpoints[Number(slider.value)];
    const labels = [item.best && "best", item.latest && "latest"].filter(Boolean).join(", ");
    const text = `epoch ${item.epoch}${labels ? ` (${labels})` : ""}`;
    $("#checkpoint-name").textContent = text;
    slider.setAttribute("aria-valuetext", text);
  };
  slider.addEventListener("input", () => {
    show();
    onchange();
  });
  show();
  return () => job.checkpoints[Number(slider.value)].epoch;
}
