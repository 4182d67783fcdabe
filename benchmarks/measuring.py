"""The part of a benchmark that runs with its own number of BLAS threads."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import cases, memory, timing


def measure(threads: int, *, growth: bool) -> dict[str, Any]:
    """All rows with this number of threads, the memory of a step, and where it was measured."""
    if cases.pytorch:
        cases.pytorch.torch.set_num_threads(threads)
    rows = [_timed(row, threads) for row in cases.table()]
    grown = []
    for what, value, row in cases.growth() if growth else ():
        print(f"threads {threads}: {row.name}", file=sys.stderr)
        times = timing.medians(row.contestants, seconds=0.03, needed=timing.LEAST)
        grown.append({"growing": what, "value": value, "threads": threads} | _named(times))
    return {"rows": rows, "growth": grown, "memory": memory.report(), "machine": machine()}


def _timed(row: cases.Row, threads: int) -> dict[str, Any]:
    print(f"threads {threads}: {row.name}", file=sys.stderr)
    return {"name": row.name, "threads": threads} | _named(timing.medians(row.contestants, unit=row.unit))


def _named(times: dict[str, float]) -> dict[str, float | None]:
    """Milliseconds under the names of the results: None where there is nothing to compare with."""
    named: dict[str, float | None] = {
        "ms": times["engine"],
        "floor_ms": times.get("floor"),
        "handwritten_ms": times.get("handwritten"),
        "torch_ms": times.get("torch"),
    }
    named |= {f"{name}_ms": times[name] for name in ("tape", "scalars") if name in times}
    return {name: None if value is None else round(value, 4) for name, value in named.items()}


def machine() -> dict[str, Any]:
    """The processor and the versions."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[index,call-overload]
    cpuinfo = Path("/proc/cpuinfo")
    models = (
        [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] if cpuinfo.exists() else []
    )
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": f"{blas['name']} {blas['version']}",
        "torch": cases.pytorch.torch.__version__ if cases.pytorch else None,
        "load": [round(load, 2) for load in os.getloadavg()],
    }
