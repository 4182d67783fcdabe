// Calls to the service. A problem response (RFC 9457) becomes an error that carries it.
import { checkConnection } from "./connection.js";
import { capital } from "./dom.js";

class ProblemError extends Error {
  constructor(status, problem) {
    super(capital(problem.detail ?? `The service returned status ${status}.`));
    this.status = status;
    this.problem = problem;
  }
}

// Returns a successful response; without any response, the page shows that the connection is lost.
export async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    checkConnection();
    throw new ProblemError(0, { detail: "The service does not respond. Is it still running?" });
  }
  if (response.status >= 502) checkConnection(); // from a proxy
  if (!response.ok) throw new ProblemError(response.status, await response.json().catch(() => ({})));
  return response;
}

// Loads a page of the service as a document.
export async function read(address) {
  const response = await request(address, { headers: { Accept: "text/html" } });
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

export async function call(path, { method = "GET", body, signal, headers = {} } = {}) {
  const options = { method, signal, headers: { Accept: "application/json", ...headers } };
  if (body !== undefined) {
    const isForm = body instanceof FormData; // the browser sets its Content-Type, with the boundary
    options.body = isForm || typeof body === "string" ? body : JSON.stringify(body);
    if (!isForm) options.headers["Content-Type"] = "application/json";
  }
  const response = await request(path, options);
  return response.status === 204 ? null : response.json();
}

// Changes the fields of a job that differ from `before`, the job as it was read. An error if another user has changed
// one of them since; `before` then has the new value, and a second call replaces it.
export async function change(path, before, fields) {
  const isSame = (a, b) => JSON.stringify(a ?? null) === JSON.stringify(b ?? null);
  const body = Object.fromEntries(Object.entries(fields).filter(([name, value]) => !isSame(value, before[name])));
  for (let attempts = 5;; attempts -= 1) {
    const response = await request(path, { headers: { Accept: "application/json" } });
    const current = await response.json();
    const name = Object.keys(body).find((name) =>
      !isSame(current[name], before[name]) && !isSame(current[name], body[name])
    );
    if (name) {
      before[name] = current[name];
      throw new ProblemError(412, {
        detail: `the ${name} has been changed in the meantime, to “${current[name] ?? ""}”. Save again to replace it.`,
      });
    }
    try {
      return await call(path, { method: "PATCH", body, headers: { "If-Match": response.headers.get("ETag") } });
    } catch (error) {
      if (error.status !== 412 || attempts === 0) throw error; // the progress of a running job changes its ETag, too
    }
  }
}

// All items of a paginated list.
export async function callAll(path) {
  const items = [];
  for (let next = path; next;) {
    const page = await call(next);
    items.push(...page.data);
    next = page.next_cursor && `${path}?cursor=${encodeURIComponent(page.next_cursor)}`;
  }
  return items;
}

// Calls a function for each item, with limited concurrency.
export async function pool(items, concurrency, work) {
  const queue = [...items];
  const runWorker = async () => {
    while (queue.length) await work(queue.shift());
  };
  await Promise.all(Array.from({ length: concurrency }, runWorker));
}

// One event stream; its messages go to the listeners by type. A browser reconnects by itself after a broken connection;
// if the service refuses one (too many streams, a restart behind a proxy), it gives up, so we retry with longer pauses.
// address(): evaluated for each connection, so that events already received are not requested again.
export function listen(address, listeners) {
  let source = null;
  let retryTimer = null;
  let wait_ms = 2000;
  let isOver = false;
  const open = () => {
    source = new EventSource(address());
    source.addEventListener("open", () => (wait_ms = 2000));
    source.addEventListener("error", () => {
      checkConnection();
      if (source.readyState !== EventSource.CLOSED) return;
      retryTimer = setTimeout(open, wait_ms);
      wait_ms = Math.min(2 * wait_ms, 60_000);
    });
    for (const [type, receive] of Object.entries(listeners)) {
      source.addEventListener(type, (event) => receive(JSON.parse(event.data)));
    }
  };
  const pause = () => {
    clearTimeout(retryTimer);
    source.close();
  };
  open();
  addEventListener("connectionback", () => {
    if (isOver || source.readyState === EventSource.OPEN) return;
    pause();
    open();
  });
  addEventListener("pagehide", pause);
  onRestored(() => isOver || open());
  return {
    close() {
      isOver = true;
      pause();
    },
  };
}

// A page restored from the back-forward cache is outdated and has no stream: reload it.
export function onRestored(reload) {
  addEventListener("pageshow", (event) => event.persisted && reload());
}
