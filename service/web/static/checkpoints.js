// The slider through a job's checkpoints, and requests of which only the latest counts.
import { $ } from "./dom.js";

export function wireCheckpoints(job, onchange) {
  const slider = $("#checkpoint");
  const show = () => {
    const item = job.checkpoints[Number(slider.value)];
    const which = [item.best && "best", item.latest && "latest"].filter(Boolean).join(", ");
    const text = `epoch ${item.epoch}${which ? ` (${which})` : ""}`;
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

// Runs one at a time; of the calls that come meanwhile only the last is answered.
export function latest(run) {
  let busy = false;
  let again = false;
  return async () => {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      do {
        again = false;
        await run();
      } while (again);
    } finally {
      busy = false;
    }
  };
}
