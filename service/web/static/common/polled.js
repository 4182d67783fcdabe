// Refreshes the live parts of a page.
import { onRestored } from "../common/api.js";
import { refresh } from "../common/live.js";

const INTERVAL_MS = 3000;

async function poll() {
  if (!document.hidden) await refresh().catch(() => {}); // the service may be down
  setTimeout(poll, INTERVAL_MS);
}
setTimeout(poll, INTERVAL_MS);
onRestored(() => refresh().catch(() => {}));
