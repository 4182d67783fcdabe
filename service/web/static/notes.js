// A star and a note on a job: what a person marks one with.
import { $, announce } from "./dom.js";
import { call } from "./api.js";
import { titleOf } from "./rows.js";

const change = (job, body) => call(job.urls.self, { method: "PATCH", body });

export async function toggleStar(job, keep) {
  keep({ starred: !job.starred }); // at once; taken back where the service refuses
  try {
    await change(job, { starred: !job.starred });
  } catch (error) {
    keep({ starred: job.starred });
    announce(error.message, "error");
  }
}

// Resolves to the note as it is kept then, or to undefined where nothing was changed.
export function editNote(job) {
  const dialog = $("#note");
  const field = $("textarea", dialog);
  $("#note-title").textContent = `Note on ${titleOf(job)}`;
  field.value = job.note ?? "";
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
      // A tab or a pasted escape would be refused: of control characters, a note has line feeds only.
      const text = field.value.replace(/\r\n?/g, "\n").replace(/\t/g, " ").replace(/[\x00-\x09\x0b-\x1f\x7f]/g, "").trim();
      if (dialog.returnValue !== "save" || text === (job.note ?? "")) return resolve(undefined);
      try {
        resolve((await change(job, { note: text || null })).note);
      } catch (error) {
        announce(error.message, "error");
        resolve(undefined);
      }
    }, { once: true });
  });
}
