"""Helpers for all parts: the databases, and medians with their spread."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.service.service_under_test import ROOT, ServiceLauncher, ServiceUnderTest

KINDS: Final = ("sqlite", "postgresql")

Figures = dict[str, Any]

TINY: Final[dict[str, Any]] = {
    "kind": "classifier",
    "epochs": 1,
    "batch_size": 500,
    "layers": [{"units": 10, "activation": "softmax"}],
    "samples": {"count": 4},
}
"""A job that trains for a few hundredths of a second, so that the time of the service dominates."""


def spread(values: Sequence[float], digits: int = 2) -> Figures:
    """The median, minimum and maximum of the rounds."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return {"median": round(middle, digits), "low": round(low, digits), "high": round(high, digits)}


@contextmanager
def both(launcher: ServiceLauncher, **environ: str) -> Iterator[dict[str, ServiceUnderTest]]:
    """The service on both databases at the same time; only one is used at a time."""
    with launcher.open("sqlite", **environ) as sqlite, launcher.open("postgresql", **environ) as postgresql:
        yield {"sqlite": sqlite, "postgresql": postgresql}


def client(mode: str, port: int, **options: object) -> subprocess.Popen[str]:
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value)) if value is not False]
    command = [sys.executable, "-m", "benchmarks.service.clients", mode, "--port", str(port)]
    command += [word for word in arguments if word != "True"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
