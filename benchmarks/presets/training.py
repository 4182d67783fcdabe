"""The training process, with one BLAS thread. It writes lines of JSON to its standard output.

It trains like a worker's child process, with the same trainer and diagnosis, so that a row has the same metrics as a
job's page, but without database and files. The time is that of the training loop, including evaluation and diagnosis,
but not loading.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.presets import independent
from benchmarks.presets.rows import Row
from engine import EpochDone, GanTrainer, checkpoint
from engine.trainers.trainer import Trainer
from service.datasets import cache
from service.datasets.cache import Dataset
from service.datasets.formats.array_folders import ArrayCache
from service.kinds.gan.training import make_samples
from service.pictures import grids
from service.spec.schema import GanSpec
from workers.training import build
from workers.training.diagnostics import TrainingDiagnostics

EVALUATED_SAMPLES = 5000
"""Number of samples for the independent reference classifier."""
SHOWN_SAMPLES = 100
SCORES = ("frechet_distance", "min_class_share", "mode_coverage", "class_entropy", "confidence")


def main() -> None:
    """Train a row, train the independent classifier, or score samples with it, depending on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of datasets, as TAPELINE_DATA")
    parser.add_argument("--work", type=Path, required=True, help="folder for unpacked data, the classifier, samples")
    parser.add_argument("--row", type=json.loads, help="JSON: kind, preset, dataset, seed")
    parser.add_argument("--score", action="store_true", help="score the row's samples instead of training it")
    options = parser.parse_args()
    classifier = options.work / "independent.safetensors"
    if options.row is None:
        digits = cache.load("mnist", options.data, cache=ArrayCache(options.work))
        checkpoint.save(classifier, independent.make(digits, _print_line))
        _print_line({"done": independent.calibrate(classifier, digits, EVALUATED_SAMPLES)})
        return
    row = Row(**options.row)
    if options.score:
        images = np.load(row.samples(options.work), allow_pickle=False)
        _print_line({"done": {independent.METRIC: independent.score(independent.load(classifier), images)}})
        return
    dataset = cache.load(row.dataset, options.data, cache=ArrayCache(options.work))
    _print_line({"done": train(row, dataset, options.work)})


def train(row: Row, dataset: Dataset, work: Path) -> dict[str, Any]:
    """Train a row to the end; returns its result."""
    spec = row.spec()
    wall_started_at, cpu_started_at = time.perf_counter(), time.process_time()
    trainer = build.trainer(spec, dataset)
    diagnostics = TrainingDiagnostics.of(spec, dataset)
    metrics: dict[str, float] = {}
    findings: dict[str, int] = {}
    for report in trainer.run():
        if isinstance(report, EpochDone):
            metrics = diagnostics.evaluate(trainer, report).metrics
            findings |= {finding.code.value: finding.epoch for finding in diagnostics.findings}
            _print_line({"epoch": report.epoch, "epochs": report.epochs})
    result: dict[str, Any] = {
        "epochs": trainer.epoch,
        "seconds": round(time.perf_counter() - wall_started_at, 1),
        "cpu_seconds": round(time.process_time() - cpu_started_at, 1),
        "load": round(os.getloadavg()[0], 1),
        "parameters": _parameters(trainer),
        "findings": findings,
    }
    if not isinstance(trainer, GanTrainer) or not isinstance(spec, GanSpec):
        return result | {"accuracy": metrics["val_accuracy"]}
    images = make_samples(trainer, row.seed, "outside judge", EVALUATED_SAMPLES)
    path = row.samples(work)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, images, allow_pickle=False)
    path.with_suffix(".png").write_bytes(grids.sample_grid(images[:SHOWN_SAMPLES]))
    scores = {name: round(metrics[name], 5) for name in SCORES}
    divergence = (1 - metrics["class_entropy"]) * math.log(dataset.info.classes)
    return result | scores | {"kl_to_uniform": round(divergence, 5), "samples": spec.health.samples}


def _parameters(trainer: Trainer) -> int:
    networks = (trainer.generator, trainer.discriminator) if isinstance(trainer, GanTrainer) else (trainer.model,)
    return sum(parameter.size for network in networks for parameter in network.parameters)


def _print_line(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
