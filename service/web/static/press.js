// A browser drops a click if its element was replaced or moved between press and release. Updates that the user has not
// asked for are therefore deferred while the mouse button or the space bar is down.

const deferred = new Set();
let isDown = false;

const press = () => (isDown = true);

function release() {
  if (!isDown) return;
  isDown = false;
  setTimeout(runDeferred); // after the click, which immediately follows the release
}

function runDeferred() {
  if (isDown) return; // pressed again
  const calls = [...deferred];
  deferred.clear();
  for (const call of calls) call();
}

// Calls a function now or, during a press, once after the release.
export function afterPress(call) {
  if (isDown) deferred.add(call);
  else call();
}

const on = (type, listener) => addEventListener(type, listener, { capture: true, passive: true });
on("pointerdown", (event) => event.button === 0 && press());
on("keydown", (event) => event.key === " " && press());
on("pointerup", release);
on("pointercancel", release); // a scroll by touch, or a drag
on("pointermove", (event) => event.buttons === 0 && release()); // released where the page gets no event, such as in a menu
on("keyup", release);
on("blur", (event) => event.target === window && release()); // the window has lost the focus: a release outside it is not reported
