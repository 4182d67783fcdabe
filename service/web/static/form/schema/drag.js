// Reorders the rows of a list with a pointer: mouse, pen or finger. The list itself handles keys.

const EDGE_PX = 60;
const SCROLL_PX = 12;

// handle: the element to grab; row: the element that moves; list: the rows' parent; dropped(from, to): called with
// indices.
export function reorderable(handle, row, list, dropped) {
  handle.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault(); // prevents text selection
    const rows = [...list.children];
    const from = rows.indexOf(row);
    const start = { y: event.clientY, scroll: scrollY };
    let to = from;
    handle.setPointerCapture(event.pointerId);
    row.classList.add("dragged");

    const move = (moved) => {
      if (moved.clientY < EDGE_PX) scrollBy(0, -SCROLL_PX);
      else if (moved.clientY > innerHeight - EDGE_PX) scrollBy(0, SCROLL_PX);
      row.style.translate = `0 ${moved.clientY - start.y + scrollY - start.scroll}px`;
      const others = rows.filter((other) => other !== row);
      to = others.filter((other) => middle(other) < moved.clientY).length;
      for (const other of others) other.classList.remove("before", "after");
      if (to !== from) (others[to] ?? others.at(-1)).classList.add(to < others.length ? "before" : "after");
    };
    const finish = (target) => {
      handle.removeEventListener("pointermove", move);
      handle.removeEventListener("pointerup", up);
      handle.removeEventListener("pointercancel", cancel);
      removeEventListener("keydown", key);
      row.style.translate = "";
      for (const other of rows) other.classList.remove("dragged", "before", "after");
      if (target !== from) dropped(from, target);
    };
    const up = () => finish(to);
    const cancel = () => finish(from);
    const key = (pressed) => pressed.key === "Escape" && cancel();
    handle.addEventListener("pointermove", move);
    handle.addEventListener("pointerup", up);
    handle.addEventListener("pointercancel", cancel);
    addEventListener("keydown", key);
  });
}

function middle(element) {
  const box = element.getBoundingClientRect();
  return box.top + box.height / 2;
}
