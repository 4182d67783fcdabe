"""Run pytest for CI, and put off the verdict on failed tests: python .ci/suite.py NAME, then pytest's arguments.

A failed test runs once more, alone, after all suites: once_more.py does that, and decides. A test of the engine, of
bits or of security fails at once, because chance plays no part in what it checks, and so does a suite of which much
fails.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

RESULTS = Path(__file__).with_name("results")
NEVER_AGAIN = (
    "tests/engine/",
    "tests/security/",
    "tests/service/access/",
    "tests/service/web/middleware/",
    "tests/service/web/rules/",
    "tests/faults/reproducibility/",
    "tests/workers/test_golden_bits.py",
)
"""Tests of the engine, of security and of bits."""
INVARIANTS = "tests/faults/invariants.py"
"""A test that fails there found a lost or different result: that may be rare, but it is no chance."""
MOST_FAILURES = 5
"""More failures than this are no chance either."""


class Outcomes:
    """Counts the tests, and keeps the names of those that failed."""

    def __init__(self) -> None:
        self.passed, self.skipped = 0, 0
        self.failed = dict[str, bool]()
        """Each failed test, and whether it may run once more."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a phase of a test: an error in setup or teardown is a failure of the test, as one of a subtest is."""
        if isinstance(report, pytest.SubtestReport):
            return  # its test is reported, too
        self.passed += report.passed and report.when == "call"
        self.skipped += report.skipped
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            exact = report.nodeid.startswith(NEVER_AGAIN) or (crash is not None and crash.path.endswith(INVARIANTS))
            self.failed[report.nodeid] = self.failed.get(report.nodeid, True) and not exact


def main(name: str, *arguments: str) -> int:
    """Run a suite.

    Returns:
        pytest's exit code, or 0 if all that failed may run once more.
    """
    outcomes, began = Outcomes(), time.monotonic()
    code = int(pytest.main([*arguments], plugins=[outcomes]))
    again = code == pytest.ExitCode.TESTS_FAILED and all(outcomes.failed.values())
    again &= 0 < len(outcomes.failed) <= MOST_FAILURES
    result = {
        "suite": name,
        "seconds": round(time.monotonic() - began),
        "passed": outcomes.passed,
        "skipped": outcomes.skipped,
        "failed": [*outcomes.failed],
        "again": again,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if again else code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
