// The accuracy of predictions over their confidence.
import { $, percent, svg } from "../common/dom.js";

const SIZE = 220;

// Draws the plot into [data-plot], and returns the calibration error as a sentence.
export function showCalibration(root, { bins, expected_error: error, validation_count: all }) {
  const [left, bottom, side] = [50, 34, SIZE];
  const x = (ratio) => left + ratio * side;
  const y = (ratio) => 8 + (1 - ratio) * side;
  const nonEmpty = bins.filter(({ count }) => count);
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  const text = (content, attributes) => svg("text", attributes, content);
  $("[data-plot]", root).replaceChildren(
    svg(
      "svg",
      {
        class: "diagram",
        viewBox: `0 0 ${left + side + 14} ${side + bottom + 10}`,
        role: "img",
        "aria-label": nonEmpty.map((bin) =>
          `confidence ${percent(bin.confidence)}: accuracy ${percent(bin.accuracy)}, ${bin.count} predictions`
        ).join("; "),
      },
      ...ticks.map((tick) =>
        svg("path", { class: "grid", d: `M${x(tick)} ${y(0)}V${y(1)}M${x(0)} ${y(tick)}H${x(1)}` })
      ),
      ...ticks.map((tick) => text(`${100 * tick}%`, { x: x(tick), y: y(0) + 14, "text-anchor": "middle" })),
      ...ticks.map((tick) => text(`${100 * tick}%`, { x: left - 4, y: y(tick) + 3, "text-anchor": "end" })),
      text("accuracy", { transform: `translate(11 ${y(0.5)}) rotate(-90)`, "text-anchor": "middle" }),
      text("confidence", { x: x(0.5), y: y(0) + 28, "text-anchor": "middle" }),
      svg("path", { class: "ideal", d: `M${x(0)} ${y(0)}L${x(1)} ${y(1)}` }),
      svg("path", {
        class: "line",
        d: nonEmpty.map((bin, index) => `${index ? "L" : "M"}${x(bin.confidence)} ${y(bin.accuracy)}`).join(""),
      }),
      ...nonEmpty.map((bin) =>
        svg(
          "circle",
          { cx: x(bin.confidence), cy: y(bin.accuracy), r: 2.5 + 5 * Math.sqrt(bin.count / all) },
          svg(
            "title",
            {},
            `${bin.count} predictions: confidence ${percent(bin.confidence)}, accuracy ${percent(bin.accuracy)}`,
          ),
        )
      ),
    ),
  );
  return `Confidence and accuracy differ by ${
    (100 * error).toFixed(1)
  } percentage points on average (expected calibration error).`;
}
