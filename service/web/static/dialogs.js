// Confirmation dialogs, copying to the clipboard, and texts of refusals.
import { announce, capital } from "./dom.js";

// Resolves to true if the dialog was closed by its confirm button; Escape means no.
export function confirmed(dialog) {
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

// Without TLS, browsers deny access to the clipboard; the text is then selected in place.
export async function copy(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    announce("Copied", "good");
  } catch {
    if (element.select) element.select();
    else getSelection().selectAllChildren(element);
    announce("The browser does not allow this page to copy. The text is selected: copy it with the keyboard.", "error");
  }
}

// The faults that a problem lists, each with its field, or else its detail.
export function faultsOf(error) {
  const place = (fault) => (fault.pointer ?? fault.parameter ?? "").replace(/^#\/?(overrides\/)?/, "");
  const words = (fault) => (place(fault) ? `${place(fault)}: ${fault.detail}` : capital(fault.detail));
  return (error.problem?.errors ?? []).map(words).join(" · ") || error.message;
}

export function showFaults(element, error) {
  element.textContent = faultsOf(error);
  element.hidden = false;
}
