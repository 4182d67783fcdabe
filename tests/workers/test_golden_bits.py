"""Small trainings of every preset, layer, loss and optimizer, and forks, give the committed bits."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.workers.golden_bits import FORKS, KEPT, SPECS


@pytest.fixture(scope="module")
def found() -> Any:
    """What the trainings give now, in a process whose kernels are those of the list."""
    command = [sys.executable, "-m", "tests.workers.golden_bits"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=KEPT.parents[3]).stdout)


@pytest.mark.slow
def test_every_training_gives_the_bits_that_it_gave(found: Any) -> None:
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    assert list(kept["digests"]) == [*SPECS, *FORKS]
    differing = {name for name, value in kept["facts"].items() if value != found["facts"][name]}
    if differing:
        pytest.skip(f"the list is of another machine: {', '.join(sorted(differing))} differ")
    changed = [name for name, digests in found["digests"].items() if digests != kept["digests"][name]]
    assert changed == [], "bits changed: if on purpose, run python -m tests.workers.golden_bits --update"
