// Calls to the service. An answer that is a problem (RFC 9457) becomes an error that carries it.

export class ProblemError extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `The service answered with status ${status}.`);
    this.status = status;
    this.problem = problem;
  }
}

export async function call(path, { method = "GET", body, signal, headers = {} } = {}) {
  const options = { method, signal, headers: { Accept: "application/json", ...headers } };
  if (body !== undefined) {
    options.body = typeof body === "string" ? body : JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ProblemError(0, { detail: "The service does not answer. Is it still running?" });
  }
  if (!answer.ok) throw new ProblemError(answer.status, await answer.json().catch(() => ({})));
  return answer.status === 204 ? null : answer.json();
}

// One stream; what it says is handed to the listeners by type. A browser reconnects by itself.
export function listen(path, listeners) {
  const source = new EventSource(path);
  for (const [type, heard] of Object.entries(listeners)) {
    source.addEventListener(type, (event) => heard(event.data === undefined ? null : JSON.parse(event.data), source));
  }
  addEventListener("pagehide", () => source.close());
  return source;
}
