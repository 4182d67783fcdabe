// The star and the note of a job.
import { $, announce } from "../common/dom.js";
import { call, change } from "../common/api.js";
import { titleOf } from "../common/job-facts.js";

// Resolves to whether the job has a star: the previous state if the service refuses the change.
export async function saveStar(job, starred) {
  try {
    return (await call(job.urls.self, { method: "PATCH", body: { starred } })).starred;
  } catch (error) {
    announce(error.message, "error");
    return job.starred;
  }
}

// Resolves to the stored note, or to undefined if it was not changed. typed: a text that could not be stored.
export function editNote(job, typed = null) {
  const dialog = $("#note");
  const field = $("textarea", dialog);
  $("#note-title").textContent = `Note on ${titleOf(job)}`;
  const before = { note: job.note };
  field.value = typed ?? job.note ?? "";
  $("#note-delete").hidden = !job.note;
  $("#note-delete").onclick = () => {
    field.value = "";
    dialog.close("save");
  };
  field.onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) dialog.close("save");
  };
  dialog.returnValue = "cancel";
  dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", async () => {
      // A tab or a pasted escape would be refused: line feeds are the only control characters in notes.
      const text = field.value.replace(/\r\n?/g, "\n").replace(/\t/g, " ").replace(/[\x00-\x09\x0b-\x1f\x7f]/g, "")
        .trim();
      if (dialog.returnValue !== "save" || text === (job.note ?? "")) return resolve(undefined);
      try {
        resolve((await change(job.urls.self, before, { note: text || null })).note);
      } catch (error) {
        announce(error.message, "error");
        resolve(error.status === 412 ? editNote({ ...job, ...before }, text) : undefined);
      }
    }, { once: true });
  });
}
