// The slider through a job's checkpoints.
import { $ } from "../common/dom.js";

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
