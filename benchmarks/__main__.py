"""``python -m benchmarks``: measures with one BLAS thread and with two, prints the table, writes ``results/``.

Each number of threads is measured in a separate process, because it must be set before NumPy loads its BLAS.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import tables

TUNING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Environment variables that would make BLAS use the kernels of another CPU."""


def main() -> None:
    """Measure in subprocesses, or, as one of them, measure and print JSON."""
    parser = argparse.ArgumentParser(
        description="Measure the engine's speed against its floor, a hand-written loop, PyTorch and JAX."
    )
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2], help="numbers of BLAS threads")
    parser.add_argument("--results", type=Path, default=tables.RESULTS, help="folder for JSON and pictures")
    parser.add_argument("--quick", action="store_true", help="measure only the table, without growth and pictures")
    parser.add_argument(
        "--document", action="store_true", help="do not measure; write the stored results into docs/performance.md"
    )
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        from benchmarks.engine import measuring

        json.dump(measuring.measure(options.measure, growth=not options.quick), sys.stdout)
        return
    if options.document:
        tables.update_document()
        return
    measurements = [_in_process(threads, options.quick) for threads in options.threads]
    rows = [row for measurement in measurements for row in measurement["rows"]]
    print(tables.text(rows))
    print(tables.memory_text(measurements[0]["memory"]))
    options.results.mkdir(parents=True, exist_ok=True)
    documents = {
        "speed.json": rows,
        "memory.json": measurements[0]["memory"],
        "machine.json": measurements[0]["machine"],
    }
    if not options.quick:
        documents["growth.json"] = [row for measurement in measurements for row in measurement["growth"]]
    for name, content in documents.items():
        text = json.dumps(content, indent=1) + "\n"
        (options.results / name).write_text(text, encoding="utf-8")
    if not options.quick:
        from benchmarks.engine import pictures

        pictures.draw(documents["growth.json"], options.results / "growth.png")
    print(f"\nwritten to {options.results}: {', '.join(sorted(documents))}")


def _in_process(threads: int, quick: bool) -> Any:
    environment = {name: value for name, value in os.environ.items() if name not in TUNING}
    environment |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    environment |= {"NPROC": str(threads), "JAX_PLATFORMS": "cpu"}  # the size of JAX's pool of threads
    environment["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'false' if threads == 1 else 'true'}"
    command = [sys.executable, "-m", "benchmarks", "--measure", str(threads), *(["--quick"] if quick else [])]
    completed = subprocess.run(
        command, env=environment, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, check=True
    )
    return json.loads(completed.stdout)


if __name__ == "__main__":
    main()
