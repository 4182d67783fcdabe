"""The part of a benchmark that runs with its own number of BLAS threads."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from benchmarks.engine import cases, memory, timing
from benchmarks.engine.peers import jax_jit, pytorch
from benchmarks.engine.rows import Row


def measure(threads: int, *, growth: bool) -> dict[str, Any]:
    """All rows with this number of threads, the memory of a step, and the machine."""
    if pytorch:
        pytorch.torch.set_num_threads(threads)
    rows = [_measure_row(row, threads) for row in cases.table()]
    growth_rows = []
    for quantity, value, row in cases.growth() if growth else ():
        print(f"threads {threads}: {row.name}", file=sys.stderr)
        times = timing.medians(row.contestants, seconds=0.03, rounds_needed=timing.MIN_ROUNDS, max_seconds=5)
        growth_rows.append({"growing": quantity, "value": value, "threads": threads} | _by_result_name(times))
    return {"rows": rows, "growth": growth_rows, "memory": memory.report(), "machine": machine()}


def _measure_row(row: Row, threads: int) -> dict[str, Any]:
    print(f"threads {threads}: {row.name}", file=sys.stderr)
    times = timing.minima if threads == 1 else timing.medians
    return {"name": row.name, "threads": threads} | _by_result_name(times(row.contestants, unit=row.unit))


def _by_result_name(times: dict[str, float]) -> dict[str, float | None]:
    """Milliseconds by the names in the results; None if there is no such variant."""
    milliseconds: dict[str, float | None] = {
        "ms": times["engine"],
        "floor_ms": times.get("floor"),
        "handwritten_ms": times.get("handwritten"),
        "torch_ms": times.get("torch"),
        "jax_ms": times.get("jax"),
    }
    milliseconds |= {f"{name}_ms": times[name] for name in ("tape", "scalars", "torch_floor") if name in times}
    return {name: None if value is None else round(value, 4) for name, value in milliseconds.items()}


def machine() -> dict[str, Any]:
    """The processor and the versions."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": _blas(),
        "torch": pytorch.torch.__version__ if pytorch else None,
        "jax": jax_jit.jax.__version__ if jax_jit else None,
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def _processor() -> str:
    """Name, family and model of the CPU (on Linux), because a name alone may refer to several generations."""
    try:
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    except OSError:
        return platform.processor()
    fields = {key.strip(): value.strip() for key, _, value in lines}
    if "model name" not in fields:
        return platform.processor()
    return f"{fields['model name']} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"


def _blas() -> str:
    """NumPy's BLAS library, and the CPU architecture of its kernels."""
    for library in threadpoolctl.threadpool_info():
        if library["user_api"] == "blas" and "numpy" in library["filepath"]:
            return (
                f"{library['internal_api']} {library['version']} ({library.get('architecture', 'one kernel for all')})"
            )
    return "an unknown BLAS"
