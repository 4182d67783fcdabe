"""``python -m benchmarks.presets``: trains all rows that are missing, prints the table, and writes ``results/``.

Each row is trained in a separate process with one BLAS thread, and stored as soon as it is finished, so the program can
be interrupted and restarted. A row whose spec has changed is trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.__main__ import TUNING
from benchmarks.presets import independent, tables
from benchmarks.presets.rows import Row, planned
from benchmarks.tables import RESULTS

ROOT = Path(__file__).parents[2]


class Store:
    """``presets.json``: the stored results."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.content: dict[str, Any] = {"independent": None, "rows": []}
        if path.exists():
            self.content = json.loads(path.read_text(encoding="utf-8"))

    def find(self, row: Row) -> dict[str, Any] | None:
        """The stored result of a row, if it was measured with the current spec and reference classifier."""
        fingerprint = row.fingerprint()
        rows = (stored for stored in self.content["rows"] if row.key.items() <= stored.items())
        return next((stored for stored in rows if stored["fingerprint"] == fingerprint), None)

    def put(self, row: Row, measured: dict[str, Any]) -> None:
        other_rows = [stored for stored in self.content["rows"] if not row.key.items() <= stored.items()]
        new_row = row.key | measured | {"fingerprint": row.fingerprint()}
        order = {tuple(planned_row.key.values()): number for number, planned_row in enumerate(planned())}
        rows = [*other_rows, new_row]
        self.content["rows"] = sorted(rows, key=lambda stored: order.get(tuple(stored[name] for name in row.key), -1))
        self.save()

    def save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".part")
        temporary.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self._path)


def main() -> None:
    """Read the command line, train the missing rows, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("TAPELINE_DATA") or ".cache/data")
    parser.add_argument("only", nargs="*", help="words of the rows to train, such as: gan stable, or: conv mnist 0")
    parser.add_argument("--data", type=Path, default=default, help="folder of datasets (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path(".cache/presets"), help="unpacked data, samples")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for JSON and Markdown")
    parser.add_argument("--seeds", type=int, help="maximum number of seeds per preset")
    parser.add_argument(
        "--independent", action="store_true", help="also score the GANs' samples with the independent classifier"
    )
    parser.add_argument("--again", action="store_true", help="train the rows again, even if they are finished")
    parser.add_argument("--table", action="store_true", help="do not train; write the tables from the stored results")
    options = parser.parse_args()
    store = Store(options.results / "presets.json")
    rows = [] if options.table else list(planned(options.only, options.seeds))
    for number, row in enumerate(rows, start=1):
        label = f"{number:3} of {len(rows)}  {row.name:44}"
        measured = None if options.again else store.find(row)
        if measured is None:
            measured = _in_process(label, options, "--row", json.dumps(row.key))
            measured |= {"machine": _machine(), "at": _now()}
            store.put(row, measured)
        print(f"\r{label}{tables.summary_line(measured)}", flush=True)
    if options.independent:
        _score_independently(store, rows, options)
    print("\n" + tables.short_table(store.content))
    for path in tables.write(store.content, options.results, ROOT):
        print(f"written: {path}")


def _score_independently(store: Store, rows: list[Row], options: argparse.Namespace) -> None:
    """Score the stored samples of GANs that have no independent distance yet."""
    classifier = store.content["independent"] or {}
    if (
        classifier.get("fingerprint") != independent.fingerprint()
        or not (options.work / "independent.safetensors").exists()
    ):
        label = f"{'independent reference classifier':57}"
        store.content["independent"] = _in_process(label, options)
        store.save()
        print(f"\r{label}{store.content['independent']['accuracy']:.2%} of the test digits")
    for row in rows:
        measured = store.find(row)
        if measured and row.samples(options.work).exists() and independent.METRIC not in measured:
            label = f"{row.name:57}"
            scored = _in_process(label, options, "--row", json.dumps(row.key), "--score")
            store.put(row, measured | scored)
            print(f"\r{label}independent Fréchet distance {scored[independent.METRIC]:.1f}")


def _in_process(label: str, options: argparse.Namespace, *arguments: str) -> dict[str, Any]:
    """Run a training process, show its progress, and return its result."""
    environment = {name: value for name, value in os.environ.items() if name not in TUNING}
    environment |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "benchmarks.presets.training", "--data", options.data, "--work", options.work]
    with subprocess.Popen(
        [*command, *arguments], env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for text in child.stdout:
            line = json.loads(text)
            if "done" in line:
                return line["done"]
            if sys.stdout.isatty():
                print(f"\r{label}epoch {line['epoch']} of {line['epochs']}", end="", flush=True)
    raise SystemExit(f"\n{label.strip()}: failed, see above")


def _machine() -> dict[str, Any]:
    from benchmarks.engine.measuring import machine

    return {name: value for name, value in machine().items() if name not in ("load", "torch")}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


if __name__ == "__main__":
    main()
