// The jobs table: only rows near the viewport exist; two spacers replace the others. Rows can have any height: each is
// measured when it is drawn; until then, the height of the last measured row of its kind is assumed.
import { $, h } from "../common/dom.js";
import { headingOf, widthOf } from "./cells.js";
import { GroupRow, JobRow } from "./rows.js";

const OVERSCAN_PX = 700; // overscan above and below the viewport
const JOB_MIN_REM = 17; // minimum width of the column with the names
const WIDE = ["job", "status", "progress", "metrics"]; // columns with their own layout
const MANY_COLUMNS = 6; // with this many columns, the table uses the full width of a large screen

// A heading that may wrap after a dot or an underscore.
const breakable = (text) => text.split(/(?<=[._/])/).flatMap((part) => [part, h("wbr")]).slice(0, -1);

// Replaces the body's children. Elements that stay in the same order are not removed, not even temporarily: that would
// cost them the focus, and the user a click in progress. Elements that move are, and the caller restores the focus.
function updateChildren(body, elements) {
  const kept = new Set(elements);
  const removed = [...body.children].filter((element) => !kept.has(element));
  let next = body.firstElementChild;
  for (const element of elements) {
    while (next && !kept.has(next)) next = next.nextElementSibling;
    if (element === next) next = next.nextElementSibling;
    else body.insertBefore(element, next);
  }
  // Last: a page that was shorter for a moment would lose its scroll position.
  for (const element of removed) element.remove();
}

export class JobTable {
  // on: callbacks: select, star, note, tag, toggle, sort, all, near (called with a section whose end is near the
  // viewport)
  constructor(table, on) {
    this.table = table;
    this.body = table.tBodies[0];
    this.on = on;
    this.rows = new Map();
    this.items = [];
    this.heights = new Map();
    this.assumedHeights = { job: 60, group: 44 };
    this.columns = [];
    this.all = h("input", {
      type: "checkbox",
      id: "all",
      "aria-label": "Select all loaded jobs",
      onclick: (event) => on.all(event.target.checked),
    });
    this.above = h("tr", { class: "spacer", "aria-hidden": true }, h("td"));
    this.below = h("tr", { class: "spacer", "aria-hidden": true }, h("td"));
    addEventListener("scroll", () => this.drawSoon(), { passive: true });
    addEventListener("resize", () => {
      this.heights.clear();
      this.drawSoon();
    });
  }

  setColumns(columns, sort) {
    const isSame = columns.map((column) => column.name).join() === this.columns.map((column) => column.name).join();
    if (!isSame || !this.headings) {
      this.columns = columns;
      this.rows.clear();
      this.heights.clear();
      this.order = null;
      this.drawHead();
    }
    for (const [cell, sortName] of this.headings) {
      if (sortName !== null && sortName === sort.replace(/^-/, "")) {
        cell.setAttribute("aria-sort", sort.startsWith("-") ? "descending" : "ascending");
      } else cell.removeAttribute("aria-sort");
    }
  }

  drawHead() {
    const cells = [
      ["job", "Job", "name"],
      ...this.columns.map((column) => [column.name, headingOf(column), column.sort, column]),
    ];
    this.headings = cells.map(([name, heading, sort, column]) => {
      const content = sort
        ? h("button", {
          class: "sorter",
          type: "button",
          dataset: { sort },
          title: column?.description ?? "",
          onclick: () => this.on.sort(sort, column),
        }, breakable(heading))
        : h("span", { title: column?.description ?? "" }, breakable(heading));
      const cell = h("th", {
        scope: "col",
        class: WIDE.includes(name) ? `c-${name}` : `c-own ${column.type}`,
        dataset: { column: name },
      }, content);
      if (column) cell.style.width = `${widthOf(column)}rem`;
      return [cell, sort];
    });
    $("thead tr", this.table).replaceChildren(
      h(
        "th",
        { class: "c-choose", scope: "col" },
        h("label", {}, this.all, h("span", { class: "label" }, "Select all loaded jobs")),
      ),
      h("th", { class: "c-star", scope: "col" }, h("span", { class: "visually-hidden" }, "Star")),
      ...this.headings.map(([cell]) => cell),
    );
    this.table.classList.toggle("many", this.columns.length > MANY_COLUMNS);
    this.table.style.minWidth = `${
      JOB_MIN_REM + 5 + this.columns.reduce((sum, column) => sum + widthOf(column), 0)
    }rem`;
    for (const spacer of [this.above, this.below]) spacer.firstChild.colSpan = 3 + this.columns.length;
  }

  // items: { key, kind: "job", id } or { key, kind: "group", section }; ends: { index, section } where more can be
  // loaded.
  show(items, ends, jobs, selected, best, parents) {
    Object.assign(this, { items, ends, jobs, selected, parents });
    if (JSON.stringify(best) !== JSON.stringify(this.best)) this.best = best;
    this.draw();
  }

  drawSoon() {
    this.due ??= requestAnimationFrame(() => {
      this.due = null;
      this.draw();
    });
  }

  heightOf(item) {
    return this.heights.get(item.key) ?? this.assumedHeights[item.kind];
  }

  // The offset of each item, and the end of the last one.
  offsets() {
    const offsets = new Float64Array(this.items.length + 1);
    this.items.forEach((item, index) => (offsets[index + 1] = offsets[index] + this.heightOf(item)));
    return offsets;
  }

  draw() {
    const { items } = this;
    const offsets = this.offsets();
    // The first time, only the visible rows, and without forcing a layout of the page.
    const isFirst = !this.rows.size && scrollY === 0;
    const [top, overscan] = isFirst ? [0, 0] : [-this.body.getBoundingClientRect().top, OVERSCAN_PX];
    const first = Math.max(0, offsets.findIndex((_, index) => (offsets[index + 1] ?? Infinity) > top - overscan));
    let last = first;
    while (last < items.length && offsets[last] < top + innerHeight + overscan) last += 1;
    const visible = items.slice(first, last);
    const visibleKeys = new Set(visible.map((item) => item.key));
    for (const key of this.rows.keys()) if (!visibleKeys.has(key)) this.rows.delete(key);
    for (const item of visible) this.fill(item);
    this.above.firstChild.style.height = `${offsets[first]}px`;
    this.below.firstChild.style.height = `${offsets[items.length] - offsets[last]}px`;
    const order = visible.map((item) => item.key).join("\n");
    if (order !== this.order) {
      this.order = order;
      const focused = document.activeElement?.closest?.("tr.job, tr.group") ? document.activeElement : null;
      updateChildren(this.body, [this.above, ...visible.map((item) => this.rows.get(item.key).element), this.below]);
      if (focused?.isConnected) focused.focus({ preventScroll: true });
    }
    if (this.measure(visible) || isFirst) this.drawSoon();
    for (const { index, section } of this.ends) if (index >= first && index <= last) this.on.near(section);
  }

  fill(item) {
    const isJob = item.kind === "job";
    if (!this.rows.has(item.key)) {
      this.rows.set(item.key, isJob ? new JobRow(item.id, this.columns, this.on) : new GroupRow(this.columns, this.on));
    }
    const row = this.rows.get(item.key);
    if (isJob) row.update(this.jobs.get(item.id), this.selected.has(item.id), this.best, this.parents);
    else row.update(item.section);
  }

  // Measures the drawn rows; returns whether any height differs from the assumed one.
  measure(visible) {
    let changed = false;
    for (const item of visible) {
      const height = this.rows.get(item.key).element.getBoundingClientRect().height;
      if (!height) continue;
      if (Math.abs(height - this.heightOf(item)) > 0.5) changed = true;
      this.heights.set(item.key, height);
      this.assumedHeights[item.kind] = height;
    }
    return changed;
  }

  // Moves the focus by a number of rows.
  move(step) {
    // A row that was scrolled out of view has no element, but still has a position.
    const key = this.focusedKey() ?? this.movedTo;
    const current = this.items.findIndex((item) => item.key === key);
    const next = Math.max(0, Math.min(this.items.length - 1, current < 0 ? 0 : current + step));
    if (!this.items[next]) return;
    const offset = this.body.getBoundingClientRect().top + scrollY + this.offsets()[next];
    if (offset < scrollY + 140 || offset > scrollY + innerHeight - 120) scrollTo({ top: offset - innerHeight / 2 });
    this.draw();
    this.movedTo = this.items[next].key;
    const row = this.rows.get(this.movedTo);
    (row?.name ?? row?.toggle)?.focus({ preventScroll: true });
  }

  focusedKey() {
    const element = document.activeElement?.closest?.("tr.job, tr.group");
    for (const [key, row] of this.rows) if (row.element === element) return key;
    return null;
  }

  // The job whose row has the focus.
  current() {
    return document.activeElement?.closest?.("tr.job")?.dataset.id ?? null;
  }
}
