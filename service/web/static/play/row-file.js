// Sends a CSV file of rows to the service, which returns it with the predictions.
import { $, counted, sentence } from "../common/dom.js";
import { request } from "../common/api.js";

// epoch(): the epoch of the checkpoint to use.
export function wireFile(job, epoch) {
  let runNumber = 0;

  $("#rows-file").addEventListener("change", async ({ target }) => {
    const [file] = target.files;
    target.value = ""; // so that choosing the same file again fires a change event
    if (!file) return;
    const ownNumber = ++runNumber;
    const showState = (text, isFault = false) => {
      $("#rows-state").textContent = text;
      $("#rows-state").className = isFault ? "note error" : "small muted";
    };
    $("#rows-result").hidden = true;
    showState("Predicting…");
    try {
      const response = await request(`${job.urls.self}/predict?checkpoint=${epoch()}`, { method: "POST", body: file, headers: { "Content-Type": "text/csv", Accept: "text/csv" } });
      const [{ rows, checkpoint, notes }, result] = [JSON.parse(response.headers.get("Tapeline-Summary")), await response.blob()];
      if (ownNumber !== runNumber) return; // another file was chosen in the meantime
      URL.revokeObjectURL($("#rows-result").href);
      $("#rows-result").href = URL.createObjectURL(result);
      $("#rows-result").download = file.name.replace(/(\.[^.]*)?$/, "-predicted$1");
      $("#rows-result").hidden = false;
      showState([`${counted(rows, "row")} predicted with the checkpoint of epoch ${checkpoint}.`, ...notes.map(sentence)].join(" "));
    } catch (error) {
      const faults = error.problem?.errors ?? [];
      if (ownNumber === runNumber) showState(faults.length ? faults.map(({ detail }) => sentence(detail)).join(" ") : error.message, true);
    }
  });
}
