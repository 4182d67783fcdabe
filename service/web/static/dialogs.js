// What pages ask a person, what they copy for one, and how they word what the service refused.
import { announce, capital } from "./dom.js";

// Resolves to whether the dialog was closed by its button "yes"; Escape means no.
export function confirmed(dialog) {
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

// A browser forbids the clipboard to pages without TLS: then the text is selected where it stands.
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

// The faults that a problem lists, each with its field, or else what it says as a whole.
export function faultsOf(error) {
  const place = (fault) => (fault.pointer ?? fault.parameter ?? "").replace(/^#\/?(overrides\/)?/, "");
  const words = (fault) => (place(fault) ? `${place(fault)}: ${fault.detail}` : capital(fault.detail));
  return (error.problem?.errors ?? []).map(words).join(" · ") || error.message;
}

export function showFaults(element, error) {
  element.textContent = faultsOf(error);
  element.hidden = false;
}
