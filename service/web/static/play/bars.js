// The bars of a prediction: one for each class, with its probability.
import { $, $$, percent } from "../common/dom.js";

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
