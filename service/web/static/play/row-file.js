// Sends a CSV file of rows to the service, which returns it with the predictions.
import { $, counted, h, sentence } from "../common/dom.js";
import { request } from "../common/api.js";
import { firstRows } from "../datasets/table-preview.js";

const SHOWN_ROWS = 10;
const SHOWN_BYTES = 64 * 1024;

// epoch(): the epoch of the checkpoint to use.
export function wireFile(job, epoch) {
  let runNumber = 0;

  $("#rows-file").addEventListener("change", async ({ target }) => {
    const [file] = target.files;
    target.value = ""; // so that choosing the same file again fires a change event
    if (!file) return;
    const ownNumber = ++runNumber;
    const showState = (texts, isFault = false) => {
      $("#rows-state").replaceChildren(...texts.map((text) => h("div", {}, text)));
      $("#rows-state").className = isFault ? "note error" : "small muted";
    };
    $("#rows-result").hidden = $("#rows-first").hidden = true;
    showState(["Predicting…"]);
    try {
      const response = await request(`${job.urls.self}/predict?checkpoint=${epoch()}`, {
        method: "POST",
        body: file,
        headers: { "Content-Type": "text/csv", Accept: "text/csv" },
      });
      const [{ rows, checkpoint, notes }, result] = [
        JSON.parse(response.headers.get("Tapeline-Summary")),
        await response.blob(),
      ];
      if (ownNumber !== runNumber) return; // another file was chosen in the meantime
      URL.revokeObjectURL($("#rows-result").href);
      $("#rows-result").href = URL.createObjectURL(result);
      $("#rows-result").download = file.name.replace(/(\.[^.]*)?$/, "-predicted$1");
      $("#rows-result").hidden = false;
      showState([
        `${counted(rows, "row")} predicted with the checkpoint of epoch ${checkpoint}.${
          rows > SHOWN_ROWS ? ` The first ${SHOWN_ROWS}:` : ""
        }`,
        ...notes.map(sentence),
      ]);
      await showFirst(result);
    } catch (error) {
      const faults = error.problem?.errors ?? [];
      if (ownNumber === runNumber) {
        showState(faults.length ? faults.map(({ detail }) => sentence(detail)) : [error.message], true);
      }
    }
  });
}

// The first rows of the file with predictions, whose columns are the last ones.
async function showFirst(result) {
  const charset = /charset=([^;]+)/.exec(result.type)?.[1] ?? "utf-8";
  const [names, ...rows] = firstRows(
    new TextDecoder(charset).decode(await result.slice(0, SHOWN_BYTES).arrayBuffer()),
    SHOWN_ROWS,
  );
  $("#rows-first").replaceChildren(
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell))))),
    ),
  );
  $("#rows-first").hidden = false;
}
