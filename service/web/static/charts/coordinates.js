// A parallel coordinates plot: an axis for each setting and one for the result, a line for each trial.
import { settingName, svg } from "../common/dom.js";

const [AXIS_SPACING, HEIGHT, TOP, BOTTOM, SIDE, GAP] = [96, 310, 52, 24, 8, 6]; // AXIS_SPACING: minimum distance between axes
const END_SHARE = 0.05; // fraction of an axis below its lowest and above its highest value
export const LOG_FROM = 30; // ratio of the highest to the lowest value from which an axis is logarithmic
const CHARACTER_WIDTH = 6.6; // maximum width of a character
const MAX_LABEL_LENGTH = 16; // maximum length of a value at an axis; its title has the full text

const text = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))) : typeof value === "string" ? value : JSON.stringify(value));

const short = (words) => (words.length > MAX_LABEL_LENGTH ? `${words.slice(0, MAX_LABEL_LENGTH - 1)}…` : words);

// Insets values from the ends of an axis, so that the lowest line is not mistaken for a frame.
const inside = (ratio) => END_SHARE + (1 - 2 * END_SHARE) * ratio;

// Positions of values on an axis, from 0 to 1, and its labels.
function scaleOf(values, prefersLog) {
  if (values.every((value) => typeof value === "number")) {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const isLog = low > 0 && (prefersLog || high / low >= LOG_FROM);
    const transform = isLog ? Math.log10 : (value) => value;
    const width = transform(high) - transform(low);
    return { at: (value) => (width ? inside((transform(value) - transform(low)) / width) : 0.5), ticks: width ? [low, high] : [low], isLog };
  }
  const names = [...new Set(values.map(text))];
  const at = (value) => (names.length > 1 ? inside(names.indexOf(text(value)) / (names.length - 1)) : 0.5);
  return { at, ticks: names.length <= 8 ? [...new Map(values.map((value) => [text(value), value])).values()] : [] };
}

// trials: those with a value. settings: pointers. logs: settings with a logarithmic scale. best: the trial to highlight.
export function drawCoordinates(element, { trials, settings, name, best, label, format, logs }) {
  const axes = [...settings.map((setting) => ({ title: settingName(setting).split(".").slice(-2).join("."), of: (trial) => trial.settings[setting], isLog: logs.includes(setting), tick: text })), { title: label, of: (trial) => trial.value, isLog: false, tick: format }];
  const scales = axes.map((axis) => scaleOf(trials.map(axis.of), axis.isLog));
  scales.forEach(({ isLog }, index) => (axes[index].title += isLog ? " (log)" : ""));
  // To keep clear of the lines, labels of the first and last axis are in the margins, the others above and below their axis.
  const marginFor = (index) => SIDE + GAP + CHARACTER_WIDTH * Math.max(0, ...scales[index].ticks.map((value) => short(axes[index].tick(value)).length));
  const [left, right] = [marginFor(0), marginFor(axes.length - 1)];
  const width = Math.max(left + right + AXIS_SPACING * (axes.length - 1), element.clientWidth);
  const xOf = (index) => left + (index * (width - left - right)) / Math.max(1, axes.length - 1);
  const yOf = (ratio) => HEIGHT - BOTTOM - ratio * (HEIGHT - TOP - BOTTOM);
  const line = (trial) => svg("path", { d: axes.map((axis, index) => `${index ? "L" : "M"}${xOf(index).toFixed(1)} ${yOf(scales[index].at(axis.of(trial))).toFixed(1)}`).join(""), "data-trial": trial.trial, class: trial.trial === best ? "best" : "" });
  const bestTrials = trials.filter((trial) => trial.trial === best);
  const isTight = width / axes.length < CHARACTER_WIDTH * Math.max(...axes.map(({ title }) => title.length)); // names need two lines
  const frame = axes.map((axis, index) => {
    const x = xOf(index);
    const [isFirst, isLast] = [!index, index === axes.length - 1];
    const tick = (value) => {
      const ratio = scales[index].at(value);
      const isOnEnd = !isFirst && !isLast && (ratio === inside(0) || ratio === inside(1));
      const attributes = isOnEnd ? { x, y: ratio > 0.5 ? TOP - GAP : HEIGHT - BOTTOM + 2.5 * GAP, "text-anchor": "middle" } : { x: isFirst ? x - GAP : x + GAP, y: yOf(ratio) + 4, "text-anchor": isFirst ? "end" : "start" };
      const words = axis.tick(value);
      return svg("text", attributes, short(words), words.length > MAX_LABEL_LENGTH ? svg("title", {}, words) : []);
    };
    const title = isFirst ? { x: SIDE, "text-anchor": "start" } : isLast ? { x: width - SIDE, "text-anchor": "end" } : { x, "text-anchor": "middle" };
    return [svg("line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }), svg("text", { ...title, y: index % 2 && isTight ? 12 : 28, class: "axis-name" }, axis.title), ...scales[index].ticks.map(tick)];
  });
  const summary = `Parallel coordinates of ${trials.length} trials: ${axes.map((axis) => axis.title).join(", ")}`;
  element.replaceChildren(svg("svg", { width, height: HEIGHT, role: "img", "aria-label": `${summary} by ${name}` }, [...trials.filter((trial) => trial.trial !== best).map(line), ...bestTrials.map(line)], frame));
}
