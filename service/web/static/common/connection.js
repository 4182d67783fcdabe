// Shows a notice while the service is unreachable and the page may be outdated.
import { $, h } from "./dom.js";

const RETRY_MS = 1500;
const TIMEOUT_MS = 3000;

let note = null;
let checking = null;

async function isReachable() {
  try {
    return (await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) })).ok;
  } catch {
    return false;
  }
}

// Called when a stream breaks or a request gets no response. A stream may also end for other reasons, so this checks
// the service. When it responds again, the event `connectionback` is dispatched.
export function checkConnection() {
  checking ??= check().finally(() => (checking = null));
}

async function check() {
  while (!(await isReachable())) {
    note ??= h("p", { class: "note warning", id: "connection-lost", role: "status" }, "Connection lost, reconnecting…");
    if (!note.isConnected) $("#toasts").append(note);
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
  if (!note) return;
  note.remove();
  note = null;
  dispatchEvent(new Event("connectionback"));
}
