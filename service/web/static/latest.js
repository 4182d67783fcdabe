// Late responses: of several requests for the same thing, only the newest counts.

// Runs one call at a time. Calls during a run share one further run, and wait for it.
export function latest(run) {
  let running = null;
  let again = false;
  async function runAll() {
    try {
      while (again) {
        again = false;
        try {
          await run();
        } catch (error) {
          if (!again) throw error;
        }
      }
    } finally {
      running = null;
    }
  }
  return () => {
    again = true;
    running ??= runAll();
    return running;
  };
}

// For overlapping requests. Each call takes a turn, and returns a function that says whether it is still the latest.
export function turns() {
  let last = 0;
  return () => {
    last += 1;
    const mine = last;
    return () => mine === last;
  };
}
