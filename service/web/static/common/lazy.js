// Requests expensive results when they come into view, and again, at a limited rate, when they are stale.
import { latest } from "./latest.js";
import { released } from "./press.js";

const MIN_INTERVAL_MS = 2000;
const INTERVAL_FACTOR = 5; // repeated requests occupy at most a fifth of the time

// request(): resolves to the response. show(response), fail(error): draw the result. A failed request is repeated the next
// time the element comes into view.
export function lazy(root, { request, show, fail }) {
  let inView = false;
  let isStale = true;
  let interval_ms = MIN_INTERVAL_MS;
  let lastRequest = 0;
  let due = null;
  const load = latest(async () => {
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
    if (isStale && inView && !document.hidden) load();
  };
  new IntersectionObserver((entries) => {
    inView = entries.at(-1).isIntersecting;
    loadIfNeeded();
  }, { rootMargin: "200px" }).observe(root);
  document.addEventListener("visibilitychange", loadIfNeeded);
  return {
    load,
    loadIfNeeded,
    invalidate() {
      root.hidden = false;
      isStale = true;
      due ??= setTimeout(() => {
        due = null;
        loadIfNeeded();
      }, Math.max(0, lastRequest + interval_ms - performance.now()));
    },
  };
}
