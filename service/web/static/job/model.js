// The model that the page shows: the server names it in #model, and its links switch it.
import { $ } from "../common/dom.js";
import { call } from "../common/api.js";

export const shownCheckpoint = () => $("#model").dataset.checkpoint;
export const shownModel = () => `${shownCheckpoint()}: epoch ${$("#model").dataset.epoch}`;
export const isStored = () => $("#model").dataset.epoch !== "";

// A result of the shown model, with the label of the model.
export async function evaluate(address, parameters = {}) {
  const checkpoint = shownCheckpoint();
  const response = await call(`${address}?${new URLSearchParams({ checkpoint, ...parameters })}`);
  return { ...response, label: `${checkpoint}: epoch ${response.checkpoint}` };
}

// update(): refreshes the page, whose address has changed.
export function wireModel(update) {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-model]");
    if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return; // to another tab or window
    event.preventDefault();
    history.replaceState(null, "", link.href);
    update().catch(() => location.reload());
  });
}
