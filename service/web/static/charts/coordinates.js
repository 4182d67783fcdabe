// A parallel coordinates plot: an axis for each setting and one for the result, a line for each trial. Ranges that are
// brushed on the axes select trials.
import { settingName, svg } from "../common/dom.js";

// AXIS_SPACING: the minimum distance between axes.
const [AXIS_SPACING, HEIGHT, TOP, BOTTOM, SIDE, GAP] = [96, 310, 52, 24, 8, 6];
const END_SHARE = 0.05; // fraction of an axis below its lowest and above its highest value
export const LOG_FROM = 30; // ratio of the highest to the lowest value from which an axis is logarithmic
const CHARACTER_WIDTH = 6.6; // maximum width of a character
const MAX_LABEL_LENGTH = 16; // maximum length of a value at an axis; its title has the full text

const text = (
  value,
) => (typeof value === "number"
  ? String(Number(value.toPrecision(4)))
  : typeof value === "string"
  ? value
  : JSON.stringify(value));

const short = (words) => (words.length > MAX_LABEL_LENGTH ? `${words.slice(0, MAX_LABEL_LENGTH - 1)}…` : words);

// The last part of a setting's name, unless others end with it, too.
function shortName(setting, settings) {
  const end = setting.slice(setting.lastIndexOf("/") + 1);
  return settings.filter((other) => other.endsWith(`/${end}`)).length > 1 ? settingName(setting) : end;
}

// Insets values from the ends of an axis, so that the lowest line is not mistaken for a frame.
const inside = (ratio) => END_SHARE + (1 - 2 * END_SHARE) * ratio;

// Positions of values on an axis, from 0 to 1, and its labels.
function scaleOf(values, prefersLog) {
  if (values.every((value) => typeof value === "number")) {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const isLog = low > 0 && (prefersLog || high / low >= LOG_FROM);
    const transform = isLog ? Math.log10 : (value) => value;
    const width = transform(high) - transform(low);
    return {
      at: (value) => (width ? inside((transform(value) - transform(low)) / width) : 0.5),
      ticks: width ? [low, high] : [low],
      isLog,
    };
  }
  const names = [...new Set(values.map(text))];
  const at = (value) => (names.length > 1 ? inside(names.indexOf(text(value)) / (names.length - 1)) : 0.5);
  return { at, ticks: names.length <= 8 ? [...new Map(values.map((value) => [text(value), value])).values()] : [] };
}

const BRUSH_WIDTH = 28; // of the area around an axis in which it can be brushed
const STEP = 0.1; // fraction of an axis by which an arrow key moves a brush

// trials: those with a value. settings: pointers. logs: settings with a logarithmic scale. best: the trial to
// highlight. brushes: Map of setting, or "value", to [low, high], positions on the axis from 0 to 1; changed by this
// function. onbrush(selected): called with the selected trials after a change; null if there is no brush.
export function drawCoordinates(element, { trials, settings, name, best, label, format, logs, brushes, onbrush }) {
  const axes = [
    ...settings.map((setting) => ({
      key: setting,
      title: shortName(setting, settings),
      of: (trial) => trial.settings[setting],
      isLog: logs.includes(setting),
      tick: text,
    })),
    { key: "value", title: label, of: (trial) => trial.value, isLog: false, tick: format },
  ];
  const scales = axes.map((axis) => scaleOf(trials.map(axis.of), axis.isLog));
  scales.forEach(({ isLog }, index) => (axes[index].title += isLog ? " (log)" : ""));
  // To keep clear of the lines, labels of the first and last axis are in the margins, the others above and below their
  // axis.
  const marginFor = (index) =>
    SIDE + GAP +
    CHARACTER_WIDTH * Math.max(0, ...scales[index].ticks.map((value) => short(axes[index].tick(value)).length));
  const [left, right] = [marginFor(0), marginFor(axes.length - 1)];
  const width = Math.max(left + right + AXIS_SPACING * (axes.length - 1), element.clientWidth);
  const xOf = (index) => left + (index * (width - left - right)) / Math.max(1, axes.length - 1);
  const yOf = (ratio) => HEIGHT - BOTTOM - ratio * (HEIGHT - TOP - BOTTOM);
  const line = (trial) =>
    svg("path", {
      d: axes.map((axis, index) =>
        `${index ? "L" : "M"}${xOf(index).toFixed(1)} ${yOf(scales[index].at(axis.of(trial))).toFixed(1)}`
      ).join(""),
      "data-trial": trial.trial,
      class: trial.trial === best ? "best" : "",
    });
  const bestTrials = trials.filter((trial) => trial.trial === best);
  // Names need two lines.
  const isTight = width / axes.length < CHARACTER_WIDTH * Math.max(...axes.map(({ title }) => title.length));
  const isInside = (trial) =>
    axes.every(({ key, of }, index) =>
      !brushes.has(key) ||
      (scales[index].at(of(trial)) >= brushes.get(key)[0] && scales[index].at(of(trial)) <= brushes.get(key)[1])
    );
  const byNumber = new Map(trials.map((trial) => [String(trial.trial), trial]));
  const mark = () => {
    for (const path of element.querySelectorAll("path")) {
      path.classList.toggle("out", !isInside(byNumber.get(path.dataset.trial)));
    }
  };
  // The area around an axis, to drag over, and the brushed range. A click clears it.
  const brush = (index) => {
    const { key, title } = axes[index];
    const [x, height] = [xOf(index) - BRUSH_WIDTH / 2, HEIGHT - TOP - BOTTOM];
    const range = svg("rect", { x: x + BRUSH_WIDTH / 4, width: BRUSH_WIDTH / 2, class: "brush" });
    const area = svg("rect", {
      x,
      y: TOP,
      width: BRUSH_WIDTH,
      height,
      class: "area",
      tabindex: 0,
      role: "slider",
      "aria-label": `Select trials by ${title}`,
      "aria-valuemin": 0,
      "aria-valuemax": 100,
    });
    const set = (ends) => {
      if (ends) brushes.set(key, ends);
      else brushes.delete(key);
      const [low, high] = ends ?? [0, 1];
      range.setAttribute("y", yOf(high));
      range.setAttribute("height", ends ? (high - low) * height : 0);
      area.setAttribute("aria-valuenow", Math.round(50 * (low + high)));
      area.setAttribute(
        "aria-valuetext",
        ends ? `${Math.round(100 * low)} to ${Math.round(100 * high)}% of the axis` : "all trials",
      );
    };
    const commit = () => {
      mark();
      onbrush(brushes.size ? trials.filter(isInside) : null);
    };
    const ratioAt = (event) =>
      Math.min(
        1,
        Math.max(0, 1 - (event.clientY - area.getBoundingClientRect().top) / area.getBoundingClientRect().height),
      );
    area.addEventListener("pointerdown", (event) => {
      const [start, before] = [ratioAt(event), brushes.get(key)];
      area.setPointerCapture(event.pointerId);
      area.onpointermove = (move) => {
        const ends = [start, ratioAt(move)].sort((a, b) => a - b);
        set(ends[1] - ends[0] > 0.01 ? ends : null);
        mark();
      };
      area.onpointerup = area.onpointercancel = () => {
        area.onpointermove = area.onpointerup = area.onpointercancel = null;
        if (brushes.get(key) === before) set(null); // a click
        commit();
      };
    });
    area.addEventListener("keydown", (event) => {
      const step = { ArrowUp: STEP, ArrowDown: -STEP }[event.key];
      if (!step && event.key !== "Escape") return;
      event.preventDefault();
      // Half of the axis.
      const [low, high] = brushes.get(key) ?? (step > 0 ? [0.5 - STEP, 1 - STEP] : [STEP, 0.5 + STEP]);
      const moved = Math.min(Math.max(low + (step ?? 0), 0), 1 - (high - low));
      set(step ? [moved, moved + high - low] : null);
      commit();
    });
    set(brushes.get(key));
    return [range, area];
  };
  const frame = axes.map((axis, index) => {
    const x = xOf(index);
    const [isFirst, isLast] = [!index, index === axes.length - 1];
    const tick = (value) => {
      const ratio = scales[index].at(value);
      const isOnEnd = !isFirst && !isLast && (ratio === inside(0) || ratio === inside(1));
      const attributes = isOnEnd
        ? { x, y: ratio > 0.5 ? TOP - GAP : HEIGHT - BOTTOM + 2.5 * GAP, "text-anchor": "middle" }
        : { x: isFirst ? x - GAP : x + GAP, y: yOf(ratio) + 4, "text-anchor": isFirst ? "end" : "start" };
      const words = axis.tick(value);
      return svg("text", attributes, short(words), words.length > MAX_LABEL_LENGTH ? svg("title", {}, words) : []);
    };
    const title = isFirst
      ? { x: SIDE, "text-anchor": "start" }
      : isLast
      ? { x: width - SIDE, "text-anchor": "end" }
      : { x, "text-anchor": "middle" };
    return [
      svg("line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }),
      ...brush(index),
      svg("text", { ...title, y: index % 2 && isTight ? 12 : 28, class: "axis-name" }, axis.title),
      ...scales[index].ticks.map(tick),
    ];
  });
  const summary = `Parallel coordinates of ${trials.length} trials: ${axes.map((axis) => axis.title).join(", ")}`;
  element.replaceChildren(
    svg("svg", { width, height: HEIGHT, role: "group", "aria-label": `${summary} by ${name}` }, [
      ...trials.filter((trial) => trial.trial !== best).map(line),
      ...bestTrials.map(line),
    ], frame),
  );
  mark();
}
