"""Run the tests that failed in CI once more, alone, each in a new process: exit 0 if all pass.

A test that passes then is flaky: its name is printed, and written to .ci/flaky.txt.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from suite import RESULTS

FLAKY = Path(__file__).with_name("flaky.txt")
NO_FILTER = ("-m", "")


def passes_alone(test: str) -> bool:
    """Run one test in a new process. A test that is skipped has not passed."""
    command = [sys.executable, "-m", "pytest", "-q", *NO_FILTER, test]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    sys.stdout.write(done.stdout)
    return done.returncode == 0 and " passed" in done.stdout


def main() -> int:
    """Print a line for each suite, run again what failed, and end with the number of flaky tests and their names."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    broken, flaky = list[str](), list[str]()
    for result in results:
        counts = ", ".join(f"{result[key]} {key}" for key in ("passed", "skipped"))
        sys.stdout.write(f"{result['suite']}: {counts}, {len(result['failed'])} failed, {result['seconds']} s\n")
        for test in result["failed"]:
            passes = result["again"] and passes_alone(test)
            (flaky if passes else broken).append(test)
    FLAKY.write_text("".join(f"{test}\n" for test in flaky), encoding="utf-8")
    sys.stdout.write("".join(f"failed: {test}\n" for test in broken))
    totals = {key: sum(result[key] for result in results) for key in ("passed", "skipped")}
    sys.stdout.write(f"{totals['passed'] + len(flaky)} passed, {len(broken)} failed, {totals['skipped']} skipped\n")
    sys.stdout.write("\n".join([f"flaky: {len(flaky)}", *flaky]) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
