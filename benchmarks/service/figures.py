"""What all parts share: the databases they run on, their clients, and medians with their spread."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.service.place import ROOT, Place, Places

KINDS: Final = ("sqlite", "postgresql")

Figures = dict[str, Any]


def spread(values: Sequence[float], digits: int = 2) -> Figures:
    """The median, and between which values the rounds lay."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return {"median": round(middle, digits), "low": round(low, digits), "high": round(high, digits)}


@contextmanager
def both(places: Places, **environ: str) -> Iterator[dict[str, Place]]:
    """The service on each database, side by side: only one is asked at a time."""
    with places.open("sqlite", **environ) as one, places.open("postgresql", **environ) as two:
        yield {"sqlite": one, "postgresql": two}


def client(what: str, port: int, **options: object) -> subprocess.Popen[str]:
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value)) if value is not False]
    command = [sys.executable, "-m", "benchmarks.service.clients", what, "--port", str(port)]
    command += [word for word in arguments if word != "True"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
