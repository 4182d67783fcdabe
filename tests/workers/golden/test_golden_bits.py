"""Small trainings of every preset, layer, loss and optimizer, and forks, reproduce the committed bits."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.workers.golden.golden_bits import FORKS, GOLDEN_FILE, SPECS


@pytest.fixture(scope="module")
def current() -> Any:
    """The digests of the trainings now, computed in a process with the kernels of the golden file."""
    command = [sys.executable, "-m", "tests.workers.golden.golden_bits"]
    return json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True, cwd=GOLDEN_FILE.parents[3]).stdout
    )


@pytest.mark.stack
def test_every_training_reproduces_its_committed_bits(current: Any) -> None:
    golden = json.loads(GOLDEN_FILE.read_text(encoding="utf-8"))
    assert list(golden["digests"]) == [*SPECS, *FORKS]
    differing = {name for name, value in golden["facts"].items() if value != current["facts"][name]}
    if differing:
        pytest.skip(f"the golden file is from another machine: {', '.join(sorted(differing))} differ")
    changed = [name for name, digests in current["digests"].items() if digests != golden["digests"][name]]
    assert changed == [], "bits changed: if on purpose, run python -m tests.workers.golden.golden_bits --update"
