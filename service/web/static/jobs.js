import { refresh } from "./live.js";

const EVERY_MS = 2000;

async function look() {
  if (!document.hidden) await refresh().catch(() => {}); // the service may be away; the next look tells
  setTimeout(look, EVERY_MS);
}
setTimeout(look, EVERY_MS);
