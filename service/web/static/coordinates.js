// Parallel coordinates: an axis for each setting and one for the result, a line for each trial.
const [NARROWEST, HEIGHT, TOP, BOTTOM, SIDE] = [480, 300, 44, 22, 12];

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.flat(2));
  return element;
}

const text = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))) : typeof value === "string" ? value : JSON.stringify(value));

// Where values lie on an axis, from 0 to 1, and what stands at it.
function scaleOf(values, isLog) {
  if (values.every((value) => typeof value === "number")) {
    const on = isLog ? Math.log10 : (value) => value;
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const width = on(high) - on(low);
    return { at: (value) => (width ? (on(value) - on(low)) / width : 0.5), ticks: width ? [low, high] : [low] };
  }
  const names = [...new Set(values.map(text))];
  const at = (value) => (names.length > 1 ? names.indexOf(text(value)) / (names.length - 1) : 0.5);
  return { at, ticks: names.length <= 8 ? [...new Map(values.map((value) => [text(value), value])).values()] : [] };
}

// trials: those with a value. settings: pointers. logs: those on a logarithmic scale. best: the trial to highlight.
export function drawCoordinates(element, { trials, settings, name, best, label, format, logs }) {
  const axes = [...settings.map((setting) => ({ title: setting.split("/").slice(-2).join("/").replace(/^\//, ""), of: (trial) => trial.settings[setting], isLog: logs.includes(setting), tick: text })), { title: label, of: (trial) => trial.value, isLog: false, tick: format }];
  const width = Math.max(NARROWEST, element.clientWidth);
  const place = (index) => SIDE + (index * (width - 2 * SIDE)) / Math.max(1, axes.length - 1);
  const height = (share) => HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM);
  const scales = axes.map((axis) => scaleOf(trials.map(axis.of), axis.isLog));
  const line = (trial) => svg("path", { d: axes.map((axis, index) => `${index ? "L" : "M"}${place(index).toFixed(1)} ${height(scales[index].at(axis.of(trial))).toFixed(1)}`).join(""), "data-trial": trial.trial, class: trial.trial === best ? "best" : "" });
  const last = trials.filter((trial) => trial.trial === best);
  const frame = axes.map((axis, index) => {
    const x = place(index);
    const anchor = index === axes.length - 1 ? "end" : index ? "middle" : "start";
    const side = index === axes.length - 1 ? -6 : 6;
    const ticks = scales[index].ticks.map((value) => svg("text", { x: x + side, y: height(scales[index].at(value)) + 4, "text-anchor": side < 0 ? "end" : "start" }, axis.tick(value)));
    return [svg("line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }), svg("text", { x, y: index % 2 && axes.length > 4 ? 12 : 28, "text-anchor": anchor, class: "axis-name" }, axis.title), ...ticks];
  });
  const summary = `Parallel coordinates of ${trials.length} trials: ${axes.map((axis) => axis.title).join(", ")}`;
  element.replaceChildren(svg("svg", { width, height: HEIGHT, role: "img", "aria-label": `${summary} by ${name}` }, [...trials.filter((trial) => trial.trial !== best).map(line), ...last.map(line)], frame));
}
