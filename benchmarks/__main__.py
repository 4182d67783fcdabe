"""``python -m benchmarks``: measures with one BLAS thread and with two, prints the table, writes ``results/``.

The number of threads must be known before NumPy loads its BLAS, so each is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
TUNING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Settings that would measure another machine's kernels."""

TARGETS = {  # name -> at most so many times the floor with one thread, with two, and PyTorch's time
    "classifier step, batch 50": (1.3, 1.5, 0.55),
    "classifier step, batch 512": (1.15, 1.15, None),
    "GAN step, batch 100": (1.35, 1.5, 0.45),
}


def main() -> None:
    """Measure in subprocesses, or, as one of them, measure and print JSON."""
    parser = argparse.ArgumentParser(description="Engine speed, beside its floor, a loop by hand, and PyTorch.")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2], help="numbers of BLAS threads")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for JSON and pictures")
    parser.add_argument("--quick", action="store_true", help="the table only: no growth, no pictures")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        from benchmarks import measuring

        json.dump(measuring.measure(options.measure, growth=not options.quick), sys.stdout)
        return
    parts = [_in_process(threads, options.quick) for threads in options.threads]
    rows = [row for part in parts for row in part["rows"]]
    print(table(rows))
    print(memory_table(parts[0]["memory"]))
    options.results.mkdir(parents=True, exist_ok=True)
    write = {"speed.json": rows, "memory.json": parts[0]["memory"], "machine.json": parts[0]["machine"]}
    if not options.quick:
        write["growth.json"] = [row for part in parts for row in part["growth"]]
    for name, content in write.items():
        text = json.dumps(content, indent=1) + "\n"
        (options.results / name).write_text(text, encoding="utf-8")
    if not options.quick:
        from benchmarks import pictures

        pictures.draw(write["growth.json"], options.results / "growth.png")
    print(f"\nwritten to {options.results}: {', '.join(sorted(write))}")


def _in_process(threads: int, quick: bool) -> Any:
    environment = {name: value for name, value in os.environ.items() if name not in TUNING}
    environment |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    command = [sys.executable, "-m", "benchmarks", "--measure", str(threads), *(["--quick"] if quick else [])]
    done = subprocess.run(
        command, env=environment, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text; a figure that misses its target is marked."""
    heads = ("engine", "tape", "floor", "by hand", "PyTorch")
    heading = f"\n{'milliseconds':32}{'threads':>8}" + "".join(f"{head:>9}" for head in heads)
    lines = [heading + f"{'x floor':>10}{'x hand':>9}{'x PyTorch':>11}"]
    for row in rows:
        one, two, torch = TARGETS.get(row["name"], (None, None, None))
        limits = {"floor_ms": one if row["threads"] == 1 else two, "handwritten_ms": one and 1.05, "torch_ms": torch}
        line = f"{row['name']:32}{row['threads']:8}{row['ms']:9.3f}"
        line += "".join(f"{_number(row.get(key)):>9}" for key in ("tape_ms", "floor_ms", "handwritten_ms", "torch_ms"))
        for (key, limit), width in zip(limits.items(), (10, 9, 11), strict=True):
            ratio = row["ms"] / row[key] if row.get(key) else None
            mark = "!" if ratio and limit and ratio > limit else " "
            line += f"{_number(ratio, 2) + mark:>{width}}"
        lines.append(line.rstrip())
    return "\n".join(lines) + "\n! misses its target"


def memory_table(rows: list[dict[str, Any]]) -> str:
    """Memory as text."""
    lines = [f"\n{'megabytes':32}{'needed':>8}{'peak':>8}{'x needed':>10}{'a step allocates':>18}{'tape: peak':>12}"]
    for row in rows:
        needed = row["parameters"] + row["gradients"] + row["activations"]
        lines.append(
            f"{row['name']:32}{needed / 1e6:8.2f}{row['peak'] / 1e6:8.2f}{row['peak'] / needed:10.2f}"
            f"{row['allocated'] / 1e6:18.3f}{row['tape_peak'] / 1e6:12.2f}"
        )
    return "\n".join(lines)


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
