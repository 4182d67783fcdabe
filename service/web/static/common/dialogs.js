// Confirmation dialogs, copying to the clipboard, saving as a file, and error messages.
import { $, announce, capital, h } from "./dom.js";

// Resolves to true if the dialog was closed by its confirm button; Escape means no.
export function confirmed(dialog) {
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true })
  );
}

// Without TLS, browsers deny access to the clipboard; the text is then selected in place.
export async function copy(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    announce("Copied", "good");
  } catch {
    if (element.select) element.select();
    else getSelection().selectAllChildren(element);
    const hint = matchMedia("(pointer: coarse)").matches
      ? "Press and hold the selected text to copy it."
      : "Press Ctrl-C to copy the selected text.";
    const dialog = element.closest("dialog[open]");
    if (dialog) showCopyHint(dialog, hint);
    else announce(hint, "error");
  }
}

// In the dialog, until it is closed: its backdrop would cover an announcement.
function showCopyHint(dialog, hint) {
  const note = dialog.querySelector(".copy-hint") ?? h("p", { class: "note copy-hint", role: "status" });
  dialog.lastElementChild.before(note);
  note.textContent = hint;
  dialog.addEventListener("close", () => note.remove(), { once: true });
}

// Downloads a file that the page has made.
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  h("a", { href: address, download: name.replaceAll(/[^\w.-]+/g, "-") }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

// The faults of a problem response, each with its field, or else the error message.
export function faultsOf(error) {
  const fieldOf = (fault) => (fault.pointer ?? fault.parameter ?? "").replace(/^#\/?(overrides\/)?/, "");
  const faultText = (fault) => (fieldOf(fault) ? `${fieldOf(fault)}: ${fault.detail}` : capital(fault.detail));
  return (error.problem?.errors ?? []).map(faultText).join(" · ") || error.message;
}

export function showFaults(element, error) {
  element.textContent = faultsOf(error);
  element.hidden = false;
}

// Runs `work` when a form is submitted. Its button is disabled meanwhile; the faults of a refused request stand in
// `note`.
export function onSubmit(form, note, work) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.submitter;
    if (button) button.disabled = true;
    note.hidden = true;
    try {
      await work(form.elements);
    } catch (error) {
      showFaults(note, error);
    } finally {
      if (button) button.disabled = false;
    }
  });
}

// The dialog #made, which shows a secret once: the returned function opens it, and the secret is discarded when it
// closes.
export function secretDialog() {
  const [dialog, shown] = [$("#made"), $("#made-secret")];
  $("#made-copy").addEventListener("click", () => copy(shown.textContent, shown));
  dialog.addEventListener("close", () => {
    shown.textContent = "";
  });
  return (secret, about) => {
    shown.textContent = secret;
    $("#made-about").textContent = about;
    dialog.showModal();
  };
}
