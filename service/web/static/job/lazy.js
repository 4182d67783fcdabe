// Requests expensive results when they come into view, and again, at a limited rate, when they are stale.
import { latest } from "../common/latest.js";
import { released } from "../common/press.js";

const MIN_INTERVAL_MS = 2000;
const INTERVAL_FACTOR = 5; // repeated requests occupy at most a fifth of the time

// request(): resolves to the response. show(response), fail(error): draw the result. A failed request is repeated the
// next time one of the elements comes into view.
export function lazy(roots, { request, show = () => {}, fail = () => {}, isStale = true }) {
  const inView = new Set();
  let interval_ms = MIN_INTERVAL_MS;
  let lastRequest = 0;
  let due = null;
  const load = latest(async () => {
    clearTimeout(due);
    due = null;
    isStale = false; // set before the request: the result can become stale while it is computed
    lastRequest = performance.now();
    let response;
    try {
      response = await request();
    } catch (error) {
      isStale = true;
      return void fail(error);
    }
    interval_ms = Math.max(MIN_INTERVAL_MS, INTERVAL_FACTOR * (performance.now() - lastRequest));
    await released();
    show(response);
  });
  const loadIfNeeded = () => {
    if (isStale && inView.size && !document.hidden) load();
  };
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) inView[isIntersecting ? "add" : "delete"](target);
    loadIfNeeded();
  }, { rootMargin: "200px" });
  for (const root of roots) observer.observe(root);
  document.addEventListener("visibilitychange", loadIfNeeded);
  return {
    load,
    loadIfNeeded,
    invalidate() {
      isStale = true;
      due ??= setTimeout(loadIfNeeded, Math.max(0, lastRequest + interval_ms - performance.now()));
    },
  };
}
