// Rows of a table with their predictions.
import { h } from "../common/dom.js";

// heads: names of the first columns; items: { cells, row }, with one cell for each head.
export function rowsTable(heads, items) {
  const names = Object.keys(items[0]?.row ?? {});
  const numbers = new Set(names.filter((name) => items.some(({ row }) => typeof row[name] === "number")));
  const head = (name) => h("th", { scope: "col", class: numbers.has(name) ? "number" : undefined }, name);
  return h("table", { class: "rows" },
    h("thead", {}, h("tr", {}, [...heads, ...names].map(head))),
    h("tbody", {}, items.map(({ cells, row }) => h("tr", {}, cells.map((cell) => h("td", { class: "small" }, cell)), names.map((name) => h("td", { class: numbers.has(name) ? "number small" : "small" }, cellContent(row[name])))))));
}

// Numbers as in the file: without binary rounding noise, and without scientific notation for ordinary numbers.
const exact = (value) => Number(value.toPrecision(15)).toString();
const cellContent = (value) => (value === null ? h("span", { class: "muted" }, "missing") : typeof value === "number" ? exact(value) : value);
