"""Run pytest for CI, and put off the verdict on failed tests: python .ci/suite.py NAME, then pytest's arguments.

A failed test runs once more, alone, after all suites: once_more.py does that, and decides. A test of the engine, of
bits or of security fails at once, because chance plays no part in what it checks, and so does a suite of which much
fails, or a part cannot run.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import pytest

RESULTS = Path(__file__).with_name("results")
NEVER_AGAIN = (
    "tests/engine/",
    "tests/security/",
    "tests/service/access/",
    "tests/service/test_tls.py",
    "tests/service/cli/commands/test_audit.py",
    "tests/service/cli/commands/test_keys.py",
    "tests/service/web/core/",
    "tests/service/web/gate/",
    "tests/service/web/http/",
    "tests/service/web/rules/",
    "tests/service/web/admin/test_administration.py",
    "tests/service/web/admin/test_audit.py",
    "tests/service/web/admin/test_sessions.py",
    "tests/browser/pages/test_keys.py",
    "tests/e2e/test_https.py",
    "tests/faults/concurrency/",
    "tests/faults/reproducibility/",
    "tests/faults/sweeps/",
    "tests/workers/golden/test_golden_bits.py",
)
"""Tests of the engine, of security, and of what is the same under failure."""
NO_CHANCE = re.compile(
    r"^(?:E|>) .*(?:digest|sha256|determinism_violation|undisturbed)|/invariants\.py:\d|crashed while running",
    re.MULTILINE,
)
"""A failure that is about one of these: other bits, a lost or repeated job, or a crash of the process. Each may be
rare, but none is chance. What fails is in the lines marked by E and >; arguments are printed with every failure."""
MOST_FAILURES = 5
"""More failures than this are no chance either."""
MAY_BE_SKIPPED = "compose"
"""The suite that needs a Docker engine. Any other of which no test ran lacks something, such as a browser."""


class Outcomes:
    """Counts the tests, and keeps the names of those that failed."""

    def __init__(self) -> None:
        self.passed, self.skipped = 0, 0
        self.failed = dict[str, bool]()
        """Each failed test, and whether it may run once more."""
        self.unreadable = list[str]()
        """Modules that could not be imported."""

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep modules whose tests never ran: with xdist, pytest's exit code is that of failed tests."""
        if report.failed:
            self.unreadable.append(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a phase of a test: an error in setup or teardown is a failure of the test, as one of a subtest is."""
        if not isinstance(report, pytest.SubtestReport):
            self.passed += report.passed and report.when == "call"
            self.skipped += report.skipped
        if report.failed:
            is_exact = report.nodeid.startswith(NEVER_AGAIN) or NO_CHANCE.search(report.longreprtext) is not None
            self.failed[report.nodeid] = self.failed.get(report.nodeid, True) and not is_exact


def main(name: str, *arguments: str) -> int:
    """Run a suite.

    Returns:
        pytest's exit code, or 0 if all that failed may run once more.
    """
    outcomes, began = Outcomes(), time.monotonic()
    code = int(pytest.main([*arguments], plugins=[outcomes]))
    again = code == pytest.ExitCode.TESTS_FAILED and all(outcomes.failed.values()) and not outcomes.unreadable
    again &= 0 < len(outcomes.failed) <= MOST_FAILURES
    result = {
        "suite": name,
        "seconds": round(time.monotonic() - began),
        "passed": outcomes.passed,
        "skipped": outcomes.skipped,
        "failed": [*outcomes.failed, *outcomes.unreadable],
        "again": again,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if code == 0 and not outcomes.passed and name != MAY_BE_SKIPPED:
        sys.stderr.write(f"{name}: no test ran; the reasons are above\n")
        return 1
    return 0 if again else code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
