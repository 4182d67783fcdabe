"""``python -m benchmarks.service [PART ...]``: measures, prints tables, writes ``benchmarks/results/service.json``.

Each part takes at most ten minutes, ``burst`` some fifteen; parts that are not selected keep their stored figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.service.parts import PARTS
from benchmarks.service.service_under_test import ROOT, ServiceLauncher

RESULTS = ROOT / "benchmarks" / "results" / "service.json"
ONCE = ("memory", "burst")
_TUNING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the performance of the service on SQLite and on PostgreSQL.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of: {', '.join(PARTS)}; none: all")
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds; fewer for a quick check")
    parser.add_argument("--data", type=Path, help="folder of datasets; with mnist in it, the overhead is that of MNIST")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    unknown = sorted(set(options.parts) - set(PARTS))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")
    for name in _TUNING:
        os.environ.pop(name, None)
    results: dict[str, Any] = json.loads(options.results.read_text()) if options.results.exists() else {}
    with tempfile.TemporaryDirectory(prefix="tapeline-bench-") as folder:
        launcher = ServiceLauncher(Path(folder), options.data)
        try:
            for name in options.parts or PARTS:
                started_at = time.monotonic()
                rows = PARTS[name](launcher, options.rounds)
                elapsed_s = time.monotonic() - started_at
                results[name] = {
                    "rows": rows,
                    "rounds": 1 if name in ONCE else options.rounds,
                    "seconds": round(elapsed_s),
                    "machine": machine(),
                }
                print(table(name, PARTS[name].__doc__ or "", rows), f"({elapsed_s:.0f} s)\n", flush=True)
                options.results.parent.mkdir(parents=True, exist_ok=True)
                options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        finally:
            launcher.close()


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def table(name: str, about: str, rows: list[dict[str, Any]]) -> str:
    """A table with one line per row; figures with a spread are shown as median (minimum to maximum)."""

    def cell(value: Any) -> str:
        if isinstance(value, dict) and "median" not in value:
            return "  ".join(f"{name}: {figure['median']:g}" for name, figure in value.items())
        if isinstance(value, dict):
            return f"{value['median']:g} ({value['low']:g} to {value['high']:g})"
        return f"{value:g}" if isinstance(value, float) else str(value)

    cells = [list(rows[0]), *[[cell(value) for value in row.values()] for row in rows]]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([f"{name}: {about.splitlines()[0]}", *lines])


if __name__ == "__main__":
    sys.exit(main())
