// Says that the service does not answer, for as long as it does not: what the page shows is old then.
import { $, h } from "./dom.js";

const AGAIN_MS = 1500;
const PATIENCE_MS = 3000;

let note = null;
let asking = null;

async function answers() {
  try {
    return (await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) })).ok;
  } catch {
    return false;
  }
}

// Called where a stream breaks or a request is not answered. A stream may also end for other reasons, so the service is
// asked. When it answers again, `connectionback` tells those that wait.
export function doubt() {
  asking ??= check().finally(() => (asking = null));
}

async function check() {
  while (!(await answers())) {
    note ??= h("p", { class: "note warning", id: "connection-lost", role: "status" }, "Connection lost, reconnecting…");
    if (!note.isConnected) $("#toasts").append(note);
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
  if (!note) return;
  note.remove();
  note = null;
  dispatchEvent(new Event("connectionback"));
}
