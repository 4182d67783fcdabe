"""The tests that play recordings, with the whole service in place of the recordings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.nightly  # the recordings are checked against the document of the API
@pytest.mark.timeout(1800)
def test_the_tests_that_play_recordings_hold_with_the_whole_service() -> None:
    command = [sys.executable, "-m", "tests.tapeline.record", "--check", "-x"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-4000:]
