// Requests expensive results when they come into view, and again when they are stale, at a limited rate.
import { throttle } from "./dom.js";
import { latest } from "./latest.js";

// request(): the response. show(response) and fail(error) draw it. After a failure, it is requested again when it comes
// into view the next time.
export function lazy(root, interval_ms, { request, show, fail }) {
  let inView = false;
  let isStale = true;
  const load = latest(async () => {
    isStale = false; // not after the response: it may become stale meanwhile
    let found;
    try {
      found = await request();
    } catch (error) {
      isStale = true;
      return void fail(error);
    }
    show(found);
  });
  const maybe = () => {
    if (isStale && inView && !document.hidden) load();
  };
  const soon = throttle(interval_ms, maybe);
  new IntersectionObserver((entries) => {
    inView = entries.at(-1).isIntersecting;
    maybe();
  }, { rootMargin: "200px" }).observe(root);
  document.addEventListener("visibilitychange", maybe);
  return {
    load,
    renew() {
      root.hidden = false;
      isStale = true;
      soon();
    },
  };
}
