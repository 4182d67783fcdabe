// The examples of a dataset: images, or rows of a table, page by page.
import { $, counted, h } from "../common/dom.js";
import { call } from "../common/api.js";
import { requestSequence } from "../common/latest.js";

const facts = JSON.parse($("#dataset").textContent);
const isTable = facts.kind === "table";
const [holder, state, more, part, label] = ["#shown", "#shown-state", "#more", "#part", "#class"].map((id) => $(id));
let cursor = null;
const nextBeginning = requestSequence();
let isCurrent = null; // whether the part and the class are still selected
let body = null; // of the table

function begin() {
  isCurrent = nextBeginning();
  cursor = null;
  holder.replaceChildren();
  if (isTable) {
    body = h("tbody");
    holder.append(
      h(
        "table",
        { class: "rows" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("th", { scope: "col", class: "number" }, "Row"),
            [facts.target, ...facts.columns].map((name) =>
              h("th", { scope: "col", class: facts.numbers.includes(name) ? "number" : undefined }, name)
            ),
          ),
        ),
        body,
      ),
    );
  }
  load();
}

async function load() {
  const isSelected = isCurrent;
  more.disabled = true;
  state.textContent = "Loading…";
  const query = new URLSearchParams({ part: part.value, limit: isTable ? "25" : "48" });
  if (label.value) query.set("class", label.value);
  else if (!isTable) query.set("order", "mixed"); // many uploads are sorted by class
  if (cursor !== null) query.set("cursor", cursor);
  let page;
  try {
    page = await call(`${isTable ? facts.urls.rows : facts.urls.examples}?${query}`);
  } catch (error) {
    if (isSelected()) state.textContent = error.message;
    return;
  } finally {
    if (isSelected()) more.disabled = false;
  }
  if (!isSelected()) return; // another part or class was selected in the meantime
  for (const item of page.data) (isTable ? body : holder).append(isTable ? row(item) : image(item));
  cursor = page.next_cursor;
  more.hidden = !page.has_more;
  const count = (isTable ? body : holder).children.length;
  holder.hidden = count === 0;
  state.textContent = count
    ? `${counted(count, isTable ? "row" : "image")} shown${page.has_more ? "" : ", all there are"}`
    : "There are none.";
}

function image({ index, class_name: name, image: data }) {
  const text = `${name}, number ${index + 1}`;
  return h(
    "figure",
    { title: text },
    h("img", { class: "pixels", src: `data:image/png;base64,${data}`, alt: text }),
    h("figcaption", {}, name),
  );
}

function row({ index, class_name: name, target, values }) {
  const cells = facts.columns.map((column) => {
    const value = values[column];
    const classes = [facts.numbers.includes(column) && "number", value === null && "muted"].filter(Boolean).join(" ");
    return h("td", { class: classes || undefined }, value === null ? "–" : String(value));
  });
  return h(
    "tr",
    {},
    h("td", { class: "number muted" }, String(index + 1)),
    h("th", { scope: "row", class: name === null ? "number" : undefined }, name ?? String(target)),
    cells,
  );
}

part.addEventListener("change", begin);
label.addEventListener("change", begin);
more.addEventListener("click", load);
begin();
