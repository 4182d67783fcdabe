// A browser drops a click if its element is replaced or moved between press and release. Refreshes that replace or move
// controls therefore wait while the mouse button or the space bar is down.

const CLICK_AFTER_TOUCH_MS = 400; // a click by touch follows its pointerup in a later task
const deferred = new Set();
const pressed = new Set(); // "pointer", "space"
let touchTimer = null;

function press(device) {
  if (device === "pointer") clearTimeout(touchTimer);
  pressed.add(device);
}

function release(device) {
  if (pressed.delete(device)) setTimeout(runDeferred); // after the click that belongs to the release
}

function runDeferred() {
  if (pressed.size) return; // pressed again
  const calls = [...deferred];
  deferred.clear();
  for (const call of calls) queueMicrotask(call); // an error in one must not prevent the others
}

// Calls a function now or, during a press, once after the release.
export function afterPress(call) {
  if (pressed.size) deferred.add(call);
  else call();
}

// Resolves after the press, if there is one, to whether there was: what was requested before may then be outdated.
export async function released() {
  if (!pressed.size) return false;
  await new Promise(afterPress);
  return true;
}

const on = (type, listener) => addEventListener(type, listener, { capture: true, passive: true });
// Not the right button, whose menu may take the release, nor the page's scroll bar, whose release may not be reported.
on("pointerdown", (event) => event.button < 2 && event.target !== document.documentElement && press("pointer"));
on("pointerup", (event) => {
  if (event.pointerType === "mouse") release("pointer");
  else touchTimer = setTimeout(() => release("pointer"), CLICK_AFTER_TOUCH_MS);
});
for (const type of ["pointercancel", "click", "auxclick"]) on(type, () => release("pointer"));
on("change", (event) => event.target.localName === "select" && release("pointer")); // its menu may take the release
// Its release was not reported.
on("pointermove", (event) => event.pointerType === "mouse" && event.buttons === 0 && release("pointer"));
on("keydown", (event) => event.key === " " && press("space"));
on("keyup", (event) => event.key === " " && release("space"));
on("blur", (event) => {
  if (event.target !== window) return;
  release("pointer"); // the window has lost the focus: a release outside it is not reported
  release("space");
});
