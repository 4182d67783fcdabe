// Creates elements and formats values. Text is always textContent, so user input cannot become markup.

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// h("a", { href, class: "x", onclick }, "text", child, ...)
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (["value", "checked", "disabled", "max", "hidden", "selected"].includes(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// The same for SVG: svg("line", { x1, x2 }, child, ...)
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.flat(2));
  return element;
}

// Calls `change`, which may replace elements, and restores the focus: to the control at the same position in the part,
// such as a row, with the same key. Without one, the focus is lost.
export function keepFocus(partSelector, keyOf, change) {
  const controls = (part) => [part, ...$$("a, button, input, select, textarea, summary", part)];
  const focused = document.activeElement;
  const part = focused?.closest?.(partSelector);
  const [key, position] = part ? [keyOf(part), controls(part).indexOf(focused)] : [];
  change();
  if (!part || document.activeElement === focused) return;
  const updated = $$(partSelector).find((other) => keyOf(other) === key);
  if (updated) controls(updated)[position]?.focus({ preventScroll: true });
}

// Shows an image, then loads another one in advance. Of those that are to be shown while one is loading, only the last
// one is requested: the service draws many of them for each request. An image that does not load delays the next one
// for a few seconds; one that is far from the window is not loaded at all.
export async function showImage(image, address, following = null) {
  const isLoading = wantedImages.has(image);
  if (!isLoading && image.loading === "lazy" && image.getBoundingClientRect().top > 2 * innerHeight) {
    image.src = address;
    return;
  }
  wantedImages.set(image, { address, following });
  if (isLoading) return;
  while (image.getAttribute("src") !== wantedImages.get(image).address) {
    image.src = wantedImages.get(image).address;
    await Promise.race([image.decode().catch(() => {}), new Promise((resolve) => setTimeout(resolve, 3000))]);
  }
  const { following: next } = wantedImages.get(image);
  if (next) new Image().src = next;
  wantedImages.delete(image);
}
const wantedImages = new WeakMap();

export const words = (name) => name.replaceAll("_", " ").replaceAll("/", " · ");
// A setting as people read and write it: optimizer.learning_rate for /optimizer/learning_rate.
export const settingName = (pointer) => (pointer.startsWith("/") ? pointer.slice(1).replaceAll("/", ".") : pointer);
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
export const sentence = (text) => capital(text) + (/[.!?]$/.test(text) ? "" : ".");
export const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

// Label, unit, goal and colour of a metric: { label, description, percent, goal, series, unit }. A metric of a single
// layer, like grad_norm/layers.0, takes the description of its base. The server's counterpart:
// service/spec/metric_info.py.
let metricInfo = null;
const metricTable = () => (metricInfo ??= JSON.parse($("#metric-info").textContent));
export function describe(name) {
  const [base, layer] = name.split("/");
  const alone = {
    label: words(base),
    description: "",
    percent: false,
    goal: null,
    series: 8,
    unit: null,
    chart: words(base),
    rank: Infinity,
  };
  const info = metricTable()[base] ?? alone;
  return layer ? { ...info, label: `${info.label} · ${layer}` } : info;
}

// What is known of a kind of job: { title, trains, verb, shows_best, task }. The server's counterpart: service/kinds.
let kindInfo = null;
export function kindOf(kind) {
  kindInfo ??= JSON.parse($("#kind-info").textContent);
  return kindInfo[kind] ?? { title: words(kind), trains: true, verb: null, shows_best: true, task: null };
}

// The metrics for summaries, of all kinds of jobs, or of one; the first is the default objective.
export function keyMetrics(kind = null) {
  const names = Object.keys(metricTable()).filter((name) =>
    metricTable()[name].key !== null && (kind === null || metricTable()[name].kinds.includes(kind))
  );
  return names.sort((a, b) =>
    describe(a).kinds[0].localeCompare(describe(b).kinds[0]) || describe(a).key - describe(b).key
  );
}

export function metric(name, value) {
  if (value === null || value === undefined) return "–";
  const { percent, unit } = describe(name);
  if (percent) return `${(100 * value).toFixed(2)}%`;
  if (unit === "bytes") return bytes(value);
  if (unit === "seconds") return `${value.toFixed(value < 100 ? 2 : 0)} s`;
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e7)) return value.toExponential(2);
  const short = Number(value.toPrecision(4));
  return Math.abs(short) < 1e4 ? short.toString() : Math.round(value).toLocaleString("en"); // as service/wording.py
}

// The same as metric_info.size.
export function bytes(count) {
  const units = ["B", "kB", "MB", "GB"];
  let power = 0;
  let value = count;
  while (value >= 1000 && power < units.length - 1) [value, power] = [value / 1000, power + 1];
  return `${value.toFixed(power && value < 100 ? 1 : 0)} ${units[power]}`;
}

export const percent = (ratio) => `${(100 * ratio).toFixed(1)}%`;

// The same as metric_info.duration.
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds > 0 && seconds < 0.95) return "under a second";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

export function ago(text) {
  const seconds = Math.max(0, (Date.now() - Date.parse(text)) / 1000);
  if (seconds < 60) return "just now";
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

let dateFormat = null; // created once, on first use: it is slow
export function when(text) {
  dateFormat ??= new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  return dateFormat.format(new Date(text));
}

// Settings of a page, stored for the next visit.
export const memory = {
  get(name, fallback) {
    try {
      return JSON.parse(localStorage.getItem(`tapeline.${name}`)) ?? fallback;
    } catch {
      return fallback;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(`tapeline.${name}`, JSON.stringify(value));
    } catch {
      // storage is unavailable
    }
  },
};

// At most one call per interval, in milliseconds; the last one is never dropped.
export function throttle(milliseconds, call) {
  let due = null;
  let lastCall = 0;
  return () => {
    due ??= setTimeout(() => {
      due = null;
      lastCall = performance.now();
      call();
    }, Math.max(0, lastCall + milliseconds - performance.now()));
  };
}

export function debounce(milliseconds, call) {
  let due = null;
  return (...values) => {
    clearTimeout(due);
    due = setTimeout(() => call(...values), milliseconds);
  };
}

export function announce(text, kind = "") {
  const note = h("p", { class: `note ${kind}`, role: kind === "error" ? "alert" : "status" }, capital(text));
  $("#toasts").append(note);
  setTimeout(() => note.remove(), kind === "error" ? 9000 : 5000);
}
