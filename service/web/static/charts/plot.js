// The options of uPlot: lines, axes, marks and bands. The same on the page and, larger, in a downloaded image.
import { label, smooth, steps, ticks, yRange } from "./align.js";
import { seriesColor, seriesDash, token } from "./palette.js";

const GUTTER = 70; // width of the vertical axis, the same in every chart, so that their epochs are aligned
const MIN_POINT_SPACING_PX = 9;
const MUTED_ALPHA = 0.45;

// The data columns for uPlot, in the order of the lines in options().
export function columns({ columns: alignedColumns }, smoothing) {
  return alignedColumns.flatMap((
    column,
  ) => (smoothing
    ? [column, smooth(column.map((value) => (value === undefined ? null : value)), smoothing)]
    : [column])
  );
}

// content: as given to Chart.show. display: { log, hidden, zoom, lit }. size: { width, height, scale }.
// currentContent(): the content at the time of drawing, whose marks and epochs can be newer.
export function options(content, display, { width, height, scale = 1 }, currentContent = () => content) {
  const { series, smoothing, axis, format, many } = content;
  const paddedRange = (low, high) => (display.log ? decades(low, high) : yRange(low, high, format.percent));
  const font = `${12 * scale}px ${token("sans") || "sans-serif"}`;
  const grid = { stroke: () => token("line"), width: scale };
  const line = { stroke: () => token("muted"), font, grid, ticks: { ...grid, size: 4 * scale }, gap: 4 * scale };
  const stroke = (item) => () => (many ? token("muted") : seriesColor(item.index));
  const lineOptions = (item, isRaw) => ({
    label: item.label,
    scale: "y",
    show: Boolean(many) || !display.hidden.has(item.name), // many lines have no buttons, so none could be shown again
    stroke: stroke(item),
    width: (isRaw || many ? 1 : 2) * scale,
    alpha: isRaw ? 0.3 : many ? MUTED_ALPHA : 1,
    dash: many ? [] : seriesDash(item.index).map((length) => length * scale),
    spanGaps: Boolean(item.sparse || smoothing),
    points: isRaw || many ? { show: false } : dots(stroke(item), scale),
  });
  return {
    width,
    height,
    pxAlign: 0.5,
    padding: [16 * scale, 14 * scale, 0, 0],
    legend: { show: false },
    scales: {
      x: { time: false, range: () => display.zoom.x ?? xRange(currentContent()) },
      y: {
        distr: display.log ? 3 : 1,
        range: (_plot, low, high) => display.zoom.y ?? paddedRange(...spread(currentContent(), display, low, high)),
      },
    },
    axes: [
      {
        ...line,
        size: 24 * scale,
        label: axis === "epoch" ? "epoch" : "time",
        labelFont: font,
        labelSize: 15 * scale,
        labelGap: 0,
        space: 44 * scale,
        incrs: steps(axis),
        splits: (_plot, _index, first, last, step) => ticks(axis, first, last, step),
        values: (_plot, values, _index, _space, step) => values.map((value) => label(axis, value, step)),
      },
      {
        ...line,
        size: GUTTER * scale,
        space: 30 * scale,
        values: (_plot, values, _index, _space, step) =>
          values.map((value) => (value === null ? null : format.tick(value, display.log ? null : step))),
      },
    ],
    series: [
      {},
      ...series.flatMap((
        item,
      ) => (smoothing ? [lineOptions(item, true), lineOptions(item, false)] : [lineOptions(item, false)])),
    ],
    hooks: {
      drawAxes: [
        (plot) => drawBands(plot, currentContent()),
        (plot) => drawSpreads(plot, currentContent(), display),
        (plot) => drawMarks(plot, currentContent(), scale),
      ],
      draw: [
        (plot) =>
          drawSpotlights(plot, currentContent(), [[currentContent().best, token("series-2")], [
            display.lit,
            token("series-1"),
          ]], scale),
      ],
    },
  };
}

export const xRange = ({ range: [first, last] }) => (last > first ? [first, last] : [first, first + 1]);

// Rounds the range outwards to round numbers for a logarithmic scale.
function decades(low, high) {
  if (!(low > 0 && high > 0)) return [1, 10];
  const size = (value) => 10 ** Math.floor(Math.log10(value));
  const [from, to] = [Math.floor(low / size(low)) * size(low), Math.ceil((high * 1.05) / size(high)) * size(high)].map((
    value,
  ) => Number(value.toPrecision(6)));
  return from < to ? [from, to] : [from, 2 * to];
}

// Dots if there is room for them; otherwise only for values between two gaps, which no line would show.
function dots(color, scale) {
  return {
    stroke: color,
    fill: color,
    width: 0,
    size: 7 * scale,
    show: (plot, series, from, to) => {
      const pointCount =
        plot.data[series].slice(from, to + 1).filter((value) => value !== null && value !== undefined).length;
      return plot.bbox.width / (devicePixelRatio * scale) / Math.max(1, pointCount) >= MIN_POINT_SPACING_PX;
    },
    filter: (plot, series, show) => (show ? null : isolatedPoints(plot.data[series])),
  };
}

function isolatedPoints(values) {
  const present = values.map((value, index) => [value, index]).filter(([value]) => value !== undefined);
  return present.filter(([value], position) =>
    value !== null && (present[position - 1]?.[0] ?? null) === null && (present[position + 1]?.[0] ?? null) === null
  ).map(([, index]) => index);
}

function drawBands(plot, { bands = [] }) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.globalAlpha = 0.5;
  for (const { from, to, color } of bands) {
    const [left, right] = [from, to].map((x) =>
      Math.min(Math.max(plot.valToPos(x, "x", true), bbox.left), bbox.left + bbox.width)
    );
    ctx.fillStyle = token(color);
    ctx.fillRect(left, bbox.top, Math.max(right - left, 2), bbox.height);
  }
  ctx.restore();
}

// The range of all values, including bands around lines.
function spread({ series }, display, low, high) {
  const bandValues = series.filter((item) => item.low && !display.hidden.has(item.name)).flatMap((
    item,
  ) => [...item.low, ...item.high]).filter((value) => value !== null && (!display.log || value > 0));
  if (!bandValues.length) return [low, high];
  return [Math.min(low ?? Infinity, ...bandValues), Math.max(high ?? -Infinity, ...bandValues)];
}

// Bands around lines that are means, from the lowest to the highest value.
function drawSpreads(plot, { series }, display) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.globalAlpha = 0.16;
  for (const { name, x, low, high, index } of series) {
    if (!low || display.hidden.has(name)) continue;
    const rows = x.map((_value, row) => row).filter((row) =>
      low[row] !== null && high[row] !== null && (!display.log || low[row] > 0)
    );
    const point = (values, row) => [plot.valToPos(x[row], "x", true), plot.valToPos(values[row], "y", true)];
    ctx.fillStyle = seriesColor(index);
    ctx.beginPath();
    for (const row of rows) ctx.lineTo(...point(high, row));
    for (const row of rows.toReversed()) ctx.lineTo(...point(low, row));
    ctx.closePath();
    ctx.fill();
  }
  ctx.restore();
}

// Dotted lines with a label at the top; labels that would overlap are stacked.
function drawMarks(plot, { marks = [] }, scale) {
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio * scale;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = token("muted");
  ctx.lineWidth = ratio;
  ctx.font = `${10 * ratio}px ${token("sans") || "sans-serif"}`;
  ctx.textBaseline = "top";
  ctx.textAlign = "left";
  const ends = [];
  for (const { x, text } of marks.toSorted((a, b) => a.x - b.x)) {
    const left = plot.valToPos(x, "x", true);
    if (left < bbox.left - 1 || left > bbox.left + bbox.width + 1) continue;
    ctx.setLineDash([2 * ratio, 3 * ratio]);
    ctx.beginPath();
    ctx.moveTo(left, bbox.top);
    ctx.lineTo(left, bbox.top + bbox.height);
    ctx.stroke();
    const width = ctx.measureText(text).width + 4 * ratio;
    const isRight = left + width > bbox.left + bbox.width;
    const start = isRight ? left - width : left;
    let row = ends.findIndex((end) => end < start);
    if (row < 0) row = ends.length;
    ends[row] = start + width;
    ctx.fillText(text, start + (isRight ? 0 : 4 * ratio), bbox.top + (11 * row - 12) * ratio);
  }
  ctx.restore();
}

// Redraws highlighted lines on top of many muted ones.
function drawSpotlights(plot, { series, smoothing, many }, highlights, scale) {
  if (!many) return;
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top - 3, bbox.width + 3, bbox.height + 6);
  ctx.clip();
  ctx.setLineDash([]);
  ctx.lineWidth = 2.5 * devicePixelRatio * scale;
  ctx.lineJoin = "round";
  for (const [name, color] of highlights) {
    const seriesIndex = series.findIndex((item) => item.name === name);
    if (seriesIndex < 0) continue;
    const values = plot.data[smoothing ? 2 * seriesIndex + 2 : seriesIndex + 1];
    ctx.strokeStyle = ctx.fillStyle = color;
    ctx.beginPath();
    let lastPoint = null;
    values.forEach((value, index) => {
      if (value === undefined || value === null) return;
      lastPoint = [plot.valToPos(plot.data[0][index], "x", true), plot.valToPos(value, "y", true)];
      ctx.lineTo(...lastPoint);
    });
    ctx.stroke();
    if (!lastPoint) continue;
    ctx.beginPath();
    ctx.arc(...lastPoint, 3.5 * devicePixelRatio * scale, 0, 2 * Math.PI);
    ctx.fill();
  }
  ctx.restore();
}
