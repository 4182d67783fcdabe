// What gates find about a version: for each its sentence, its evidence, and a button for the requests that would supply
// what is missing.
import { $$, bytes, counted, h, metric } from "../common/dom.js";
import { call, request } from "../common/api.js";
import { kindOf } from "./gates.js";

const POLL_MS = 1500;
const ENDED = ["succeeded", "failed", "cancelled"];

// onsupply(finding, button): called for a press on the button of a finding; without it, there are no buttons.
export function findingItems(findings, onsupply = null) {
  return findings.map((finding) => {
    const label = onsupply && finding.remedies.length > 0 && remedyLabel(finding);
    return h(
      "li",
      { class: finding.passed ? "met" : "failed" },
      h("span", { class: "visually-hidden" }, finding.passed ? "Met: " : "Not met: "),
      finding.sentence,
      evidence(finding),
      label &&
        h(
          "div",
          { class: "row" },
          h("button", {
            type: "button",
            class: "slim primary",
            onclick: ({ currentTarget }) => onsupply(finding, currentTarget),
          }, label),
        ),
    );
  });
}

// Adds the evidence to the findings that the server has rendered.
export function showEvidence(root = document) {
  for (const list of $$("[data-findings]", root)) {
    list.replaceChildren(...findingItems(JSON.parse(list.dataset.findings)));
    list.removeAttribute("data-findings");
  }
}

function remedyLabel({ gate, remedies }) {
  const sweeps = remedies.filter(({ path }) => path === "/sweeps");
  if (sweeps.length === remedies.length) {
    const jobs = sweeps.reduce((sum, { body }) => sum + (body.seeds?.length ?? 1), 0);
    return `Train what is missing: ${counted(jobs, "job")}`;
  }
  return kindOf(gate)?.remedy || `Send ${remedies[0].method} ${remedies[0].path}`;
}

function evidence({ evidence: found }) {
  const rows = found.values ? pairs(found) : [];
  const facts = Object.entries(found).filter(([name, value]) => !SHOWN_OTHERWISE.has(name) && !isEmpty(value));
  if (!rows.length && !facts.length) return null;
  return h(
    "details",
    { class: "small" },
    h("summary", {}, "Evidence"),
    rows.length > 0 &&
      h(
        "div",
        { class: "scroll", tabindex: "0", role: "group", "aria-label": "Values by seed" },
        h(
          "table",
          {},
          h("thead", {}, h("tr", {}, ...rows[0].map((text) => h("th", { scope: "col" }, text)))),
          h("tbody", {}, ...rows.slice(1).map((cells) => h("tr", {}, ...cells.map((cell) => h("td", {}, cell))))),
        ),
      ),
    facts.length > 0 &&
      h(
        "dl",
        { class: "facts" },
        ...facts.flatMap((
          [name, value],
        ) => [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, ...valueParts(name, value, found))]),
      ),
  );
}

const SHOWN_OTHERWISE = new Set(["values", "metric", "seeds", "jobs"]);
const isEmpty = (value) => value === null || (typeof value === "object" && Object.keys(value).length === 0);

// The values of both sides by seed, with links to the jobs; the first row is that of the titles.
function pairs({ values, seeds, jobs, metric: name }) {
  const sides = Object.entries(jobs ?? {}); // in the order of the sides: that of the other version, then the version's
  const columns = [values.other, values.version];
  const titles = ["Seed", ...sides.map(([reference]) => reference)];
  const cell = (side, index, seed) => {
    const text = metric(name, columns[side][seed]);
    const job = sides[side]?.[1][index];
    return job ? h("a", { href: `/ui/jobs/${job}` }, text) : text;
  };
  return [
    titles,
    ...(seeds ?? []).map((seed, index) => [String(seed), ...columns.map((_, side) => cell(side, index, seed))]),
  ];
}

function valueParts(name, value, { metric: of }) {
  if (name === "size_bytes") return [bytes(value)];
  if (of && name === "difference") return [metric(of, value)];
  if (of && name === "interval") return [value.map((bound) => metric(of, bound)).join(" to ")];
  if (name === "reproductions") {
    return Object.entries(value).flatMap((
      [job, match],
    ) => [
      h("a", { href: `/ui/jobs/${job}` }, job.slice(-6).toLowerCase()),
      `: ${match ? "same bits" : match === null ? "not ended" : "differs"} `,
    ]);
  }
  if (name === "approvals") {
    return value.flatMap(({ owner, note }) => [h("div", {}, note ? `${owner}: ${note}` : owner)]);
  }
  if (typeof value === "number") {
    return [Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)))];
  }
  return [typeof value === "string" ? value : JSON.stringify(value)];
}

// Sends the requests of a finding. Returns the jobs and sweeps that they started.
export async function supply({ remedies }, owner) {
  const started = [];
  for (const { method, path, body } of remedies) {
    const headers = { "Idempotency-Key": crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` };
    const isOfModel = path.startsWith("/models/");
    if (method === "GET") { // a certificate, which is made by its first download
      await (await request(path)).blob();
      continue;
    }
    const created = await call(isOfModel && owner ? `${path}?owner=${encodeURIComponent(owner)}` : path, {
      method,
      body: body ?? undefined,
      headers,
    });
    if (/^(job|swp)_/.test(created?.id ?? "")) started.push(created);
  }
  return started;
}

// Shows the progress of jobs and sweeps in an element until they have ended, or `isOver()`.
export async function follow(started, element, isOver) {
  for (;;) {
    const states = await Promise.all(started.map(({ urls }) => call(urls.self)));
    element.replaceChildren(...states.map(progressLine));
    if (isOver()) return false;
    if (states.every(({ status }) => ENDED.includes(status))) return true;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    if (isOver()) return false;
  }
}

function progressLine(state) {
  const isSweep = state.id.startsWith("swp_");
  const done = isSweep
    ? (state.epochs_trained + state.epochs_reused) / Math.max(1, state.epochs_started)
    : state.progress.fraction;
  const name = state.name ?? (isSweep ? "sweep" : "reproduction");
  return h(
    "p",
    { class: "supplying small" },
    h("a", { href: state.urls.page }, name),
    h("span", { class: `status ${state.status}` }, state.status),
    h("progress", { value: Math.min(1, done), max: 1, "aria-label": `Progress of ${name}` }),
  );
}
