// Answers that come late: of several requests for the same thing, only the newest one counts.

// Runs one at a time. Calls that come meanwhile share one more run after it, and each waits for the last.
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

// For requests that overlap. Each call takes a turn, and gives a function that tells whether no later turn was taken.
export function turns() {
  let last = 0;
  return () => {
    last += 1;
    const mine = last;
    return () => mine === last;
  };
}
