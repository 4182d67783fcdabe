// Requests expensive results when they come into view, and again, at a limited rate, when they are stale.
import { throttle } from "./dom.js";
import { latest } from "./latest.js";
import { released } from "./press.js";

// request(): resolves to the response. show(response), fail(error): draw the result. A failed request is repeated the next
// time the element comes into view.
export function lazy(root, interval_ms, { request, show, fail }) {
  let inView = false;
  let isStale = true;
  const load = latest(async () => {
    isStale = false; // set before the request: the result can become stale while it is computed
    let response;
    try {
      response = await request();
    } catch (error) {
      isStale = true;
      return void fail(error);
    }
    await released();
    show(response);
  });
  const loadIfNeeded = () => {
    if (isStale && inView && !document.hidden) load();
  };
  const loadSoon = throttle(interval_ms, loadIfNeeded);
  new IntersectionObserver((entries) => {
    inView = entries.at(-1).isIntersecting;
    loadIfNeeded();
  }, { rootMargin: "200px" }).observe(root);
  document.addEventListener("visibilitychange", loadIfNeeded);
  return {
    load,
    invalidate() {
      root.hidden = false;
      isStale = true;
      loadSoon();
    },
  };
}
