// Predictions over targets of a regressor, with the diagonal on which the two are equal.
import { $, metric, svg } from "../common/dom.js";
import { ticks } from "./scatter.js";

const SIZE = 220;

// root: an element with a place for the plot. Returns a sentence about what is shown.
export function showResiduals(root, { points, target, validation_count: all }) {
  const [left, bottom, side] = [58, 34, SIZE];
  const values = points.flat();
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = (high - low) * 0.03 || 1;
  const at = (value) => (value - low + room) / (high - low + 2 * room);
  const x = (value) => left + at(value) * side;
  const y = (value) => 8 + (1 - at(value)) * side;
  const marks = ticks(low, high, false, 4);
  const text = (content, attributes) => svg("text", attributes, content);
  const short = (value) => metric("val_rmse", value);
  $("[data-plot]", root).replaceChildren(
    svg(
      "svg",
      {
        class: "diagram",
        viewBox: `0 0 ${left + side + 14} ${side + bottom + 10}`,
        role: "img",
        "aria-label": `predictions over targets of ${points.length} rows`,
      },
      ...marks.map((mark) =>
        svg("path", { class: "grid", d: `M${x(mark)} 8V${8 + side}M${left} ${y(mark)}H${left + side}` })
      ),
      ...marks.map((mark) => text(short(mark), { x: x(mark), y: 8 + side + 14, "text-anchor": "middle" })),
      ...marks.map((mark) => text(short(mark), { x: left - 4, y: y(mark) + 3, "text-anchor": "end" })),
      text("prediction", { transform: `translate(9 ${8 + side / 2}) rotate(-90)`, "text-anchor": "middle" }),
      text(target, { x: left + side / 2, y: 8 + side + 28, "text-anchor": "middle" }),
      svg("path", { class: "ideal", d: `M${x(low)} ${y(low)}L${x(high)} ${y(high)}` }),
      ...points.map(([truth, prediction]) =>
        svg(
          "circle",
          { class: "dot", cx: x(truth), cy: y(prediction), r: 2.2 },
          svg("title", {}, `${target} ${short(truth)}, predicted ${short(prediction)}`),
        )
      ),
    ),
  );
  return points.length < all
    ? `${points.length.toLocaleString("en")} of ${all.toLocaleString("en")} validation rows, evenly spaced.`
    : `${all.toLocaleString("en")} validation rows.`;
}
