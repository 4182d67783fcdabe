"""The part that trains, in a process of its own with one BLAS thread; it writes lines of JSON to its output.

It trains as a worker's child does, with the same trainer and the same watch over its health; only the database and the
job's files are left out. Seconds are those of the loop, evaluation and health included, loading not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.presets import outside
from benchmarks.presets.rows import Row
from engine import EpochDone, GanTrainer, checkpoint
from service import datasets
from service.datasets import Dataset
from service.pictures import grids
from workers import build
from workers.health import Watch, make_samples

JUDGED = 5000
SHOWN = 100


def main() -> None:
    """Train what the command line says; without a row, the outside judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets, as TAPELINE_DATA")
    parser.add_argument("--work", type=Path, required=True, help="folder for unpacked data, the judge, and pictures")
    parser.add_argument("--row", type=json.loads, help="JSON: kind, preset, dataset, seed")
    options = parser.parse_args()
    judge = options.work / "outside-judge.safetensors"
    if options.row is None:
        digits = datasets.load("mnist", options.data, cache_root=options.work)
        checkpoint.save(judge, outside.make(digits, _say))
        _say({"done": outside.calibrate(judge, digits, JUDGED)})
        return
    row = Row(**options.row)
    dataset = datasets.load(row.dataset, options.data, cache_root=options.work)
    _say({"done": train(row, dataset, judge, options.work / "pictures")})


def train(row: Row, dataset: Dataset, judge: Path, pictures: Path) -> dict[str, Any]:
    """Train a row to its end, and say what came of it."""
    spec = row.spec()
    wall, processor = time.perf_counter(), time.process_time()
    trainer = build.trainer(spec, dataset)
    watch = Watch(spec, build.judge(dataset) if isinstance(trainer, GanTrainer) else None)
    metrics: dict[str, float] = {}
    found: dict[str, int] = {}
    for report in trainer.run():
        if isinstance(report, EpochDone):
            metrics = watch.look(trainer, report).metrics
            found |= {finding.code.value: finding.epoch for finding in watch.findings}
            _say({"epoch": report.epoch, "epochs": report.epochs})
    done: dict[str, Any] = {
        "epochs": trainer.epoch,
        "seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - processor, 1),
        "load": round(os.getloadavg()[0], 1),
        "parameters": _parameters(trainer),
        "findings": found,
    }
    if not isinstance(trainer, GanTrainer):
        return done | {"accuracy": metrics["val_accuracy"]}
    images = make_samples(trainer, row.seed, "outside judge", JUDGED)
    pictures.mkdir(parents=True, exist_ok=True)
    grid = grids.sample_grid(images[:SHOWN])
    (pictures / f"{row.kind}-{row.preset}-{row.dataset}-{row.seed}.png").write_bytes(grid)
    scores = outside.score(outside.load(judge, dataset), images)
    return done | {name: round(value, 5) for name, value in scores.items()}


def _parameters(trainer: build.Trainer) -> int:
    networks = (trainer.generator, trainer.discriminator) if isinstance(trainer, GanTrainer) else (trainer.model,)
    return sum(parameter.size for network in networks for parameter in network.parameters)


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
