// Exports a chart as a file: an image with title and legend, or the numbers as CSV.
/* global uPlot */
import { save } from "../common/dialogs.js";
import { capital, h } from "../common/dom.js";
import { align } from "./align.js";
import { seriesColor, seriesDash, token } from "./palette.js";
import { columns, options } from "./plot.js";

const [WIDTH, HEIGHT, SCALE, MARGIN] = [2400, 1400, 2.6, 40];

export async function savePng(title, content, display) {
  const canvas = h("canvas", { width: WIDTH, height: HEIGHT });
  const ctx = canvas.getContext("2d");
  const sans = token("sans") || "sans-serif";
  ctx.fillStyle = token("card");
  ctx.fillRect(0, 0, WIDTH, HEIGHT);
  ctx.fillStyle = token("ink");
  ctx.font = `600 ${18 * SCALE}px ${sans}`;
  ctx.fillText(capital(title), MARGIN, MARGIN + 14 * SCALE);
  const legendBottom = drawLegend(ctx, content, display, MARGIN + 38 * SCALE, sans);
  const ratio = devicePixelRatio;
  const size = {
    width: (WIDTH - MARGIN) / ratio,
    height: (HEIGHT - legendBottom - MARGIN) / ratio,
    scale: SCALE / ratio,
  };
  const plot = await new Promise((resolve) => {
    const plotOptions = options(content, { ...display, lit: null }, size);
    plotOptions.hooks.ready = [resolve];
    const aligned = align(content.series);
    new uPlot(plotOptions, [aligned.x, ...columns(aligned, content.smoothing)], document.createElement("div"));
  });
  ctx.drawImage(plot.ctx.canvas, 0, legendBottom);
  plot.destroy();
  save(await new Promise((resolve) => canvas.toBlob(resolve, "image/png")), `tapeline-${title}.png`);
}

// Returns the y position below the header.
function drawLegend(ctx, { series, many, best }, display, top, sans) {
  ctx.font = `${13 * SCALE}px ${sans}`;
  const listed = many
    ? series.filter((item) => item.name === best)
    : series.filter((item) => !display.hidden.has(item.name));
  let [left, y] = [MARGIN, top];
  for (const item of listed) {
    const label = many ? `best: ${item.label}` : item.label;
    const width = ctx.measureText(label).width + 36 * SCALE;
    if (left > MARGIN && left + width > WIDTH - MARGIN) [left, y] = [MARGIN, y + 20 * SCALE];
    ctx.strokeStyle = many ? token("series-2") : seriesColor(item.index);
    ctx.setLineDash(many ? [] : seriesDash(item.index).map((length) => length * SCALE));
    ctx.lineWidth = 2 * SCALE;
    ctx.beginPath();
    ctx.moveTo(left, y - 4 * SCALE);
    ctx.lineTo(left + 20 * SCALE, y - 4 * SCALE);
    ctx.stroke();
    ctx.fillStyle = token("ink");
    ctx.fillText(label, left + 25 * SCALE, y);
    left += width;
  }
  ctx.setLineDash([]);
  return y + 12 * SCALE;
}

export function saveCsv(title, { series, axis }) {
  const xs = [...new Set(series.flatMap((item) => item.x))].sort((a, b) => a - b);
  // A line with a band gets two more columns, for its lower and upper bounds.
  const all = series.flatMap((
    item,
  ) => [
    item,
    ...(item.low
      ? [{ ...item, label: `${item.label} (low)`, y: item.low }, {
        ...item,
        label: `${item.label} (high)`,
        y: item.high,
      }]
      : []),
  ]);
  const cells = all.map((item) => new Map(item.x.map((x, index) => [x, item.y[index]])));
  const cell = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = [
    [axis, ...all.map((item) => cell(item.label))],
    ...xs.map((x) => [x, ...cells.map((column) => column.get(x) ?? "")]),
  ];
  save(new Blob([lines.map((line) => `${line.join(",")}\n`).join("")], { type: "text/csv" }), `tapeline-${title}.csv`);
}
