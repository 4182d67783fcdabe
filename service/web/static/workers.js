// Refreshes the workers and the queue.
import { onRestored } from "./api.js";
import { refresh } from "./live.js";

const EVERY_MS = 3000;

async function again() {
  if (!document.hidden) await refresh().catch(() => {}); // the service may be down
  setTimeout(again, EVERY_MS);
}
setTimeout(again, EVERY_MS);
onRestored(() => refresh().catch(() => {}));
