// Protection from late responses: of several requests for the same thing, only the newest counts.

// Wraps an asynchronous function so that it never overlaps itself. Calls during a run share one subsequent run and
// wait for it.
export function latest(run) {
  let running = null;
  let isRequested = false;
  async function runAll() {
    try {
      while (isRequested) {
        isRequested = false;
        try {
          await run();
        } catch (error) {
          if (!isRequested) throw error;
        }
      }
    } finally {
      running = null;
    }
  }
  return () => {
    isRequested = true;
    running ??= runAll();
    return running;
  };
}

// For overlapping requests. Call the returned function at the start of each: it returns a predicate that is true as
// long as no later request has started.
export function requestSequence() {
  let newest = 0;
  return () => {
    newest += 1;
    const number = newest;
    return () => number === newest;
  };
}
