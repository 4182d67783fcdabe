"""Calibration: measures the speed of this machine with steps of four small trainings.

Each training spends most of its time in one kind of work: dense products, convolutions, elementwise work, call
overhead. Their times relative to the reference machine yield a factor for each kind
(``service.spec.estimation.work``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine import BatchDone
from service.datasets.builtins import BUILT_IN
from service.datasets.cache import Dataset, Examples
from service.spec.estimation import work
from service.spec.estimation.layer_shapes import Shape
from service.spec.validation import resolve
from workers.training import build

_IMAGE_SIDE: Final = 28
_IMAGE_COUNT: Final = 1000
_WARM_UP_STEPS: Final = 3
"""Steps before the measurement: the first ones allocate memory and record the tape."""
_MEASUREMENT_S: Final = 0.06
"""Duration of the measurement of each training."""
_MIN_STEPS: Final = 3
_REGULARIZATION: Final = 0.02
"""Strength of the regularization towards a common factor, which limits the effect of a disturbed measurement."""
_MAX_FACTOR: Final = 100.0

_SOFTMAX: Final = {"units": 10, "activation": "softmax"}
_CONV: Final = {"type": "conv2d", "filters": 16, "activation": "relu"}
TRAININGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "dense": {"batch_size": 100, "layers": [*[{"units": 512, "activation": "relu"}] * 2, _SOFTMAX]},
    "convolution": {
        "batch_size": 20,
        "layers": [_CONV, {"type": "max_pool2d"}, {**_CONV, "filters": 32}, {"type": "flatten"}, _SOFTMAX],
    },
    "elementwise": {
        "batch_size": 100,
        "layers": [*[{"type": "batch_norm", "activation": "relu"}, {"type": "dropout", "rate": 0.1}] * 2, _SOFTMAX],
    },
    "overhead": {"batch_size": 10, "layers": [*[{"units": 8, "activation": "relu"}] * 10, _SOFTMAX]},
}


def measure() -> dict[str, float]:
    """Measure the factors of this machine; takes a third of a second on an idle machine.

    They refer to CPU time, which other processes hardly change. The ratio of wall-clock time to CPU time is the factor
    ``contention``, at least 1.
    """
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (_IMAGE_COUNT, _IMAGE_SIDE, _IMAGE_SIDE), np.uint8)
    labels = (np.arange(_IMAGE_COUNT) % 10).astype(np.uint8)
    dataset = Dataset(BUILT_IN["mnist-10k"].info, Examples(pixels, labels), Examples(pixels[:1], labels[:1]), sha256="")
    expected, measured_s, ratios = [], [], []
    for training in TRAININGS.values():
        spec = resolve(
            {"kind": "classifier", "augmentation": {"max_shift": 0}, "optimizer": {"nesterov": False}, **training}
            | {"epochs": 1000}
        )
        step_shape = Shape(rows=_IMAGE_SIDE, columns=_IMAGE_SIDE, classes=10, train_count=spec.batch_size)
        seconds_by_group = work.seconds(work.count(spec, step_shape, epochs=0, steps=1), {})
        expected.append([seconds_by_group[group] for group in work.GROUPS])
        step_s, ratio = _measure_steps(build.trainer(spec, dataset))
        measured_s.append(step_s)
        ratios.append(ratio)
    factors = dict(zip(work.GROUPS, _fit_factors(np.array(expected), np.array(measured_s)), strict=True))
    return factors | {work.CONTENTION: round(max(1.0, median(ratios)), 4)}


def _measure_steps(trainer: build.Trainer) -> tuple[float, float]:
    """The CPU time of a step in seconds, and the ratio of wall-clock time to CPU time."""
    steps: list[float] = []
    wall_started_at = previous_at = 0.0
    for report in trainer.run():
        now = time.process_time()
        if isinstance(report, BatchDone):
            if report.step == _WARM_UP_STEPS:
                wall_started_at, cpu_started_at = time.perf_counter(), now
            elif report.step > _WARM_UP_STEPS:
                steps.append(now - previous_at)
                if len(steps) >= _MIN_STEPS and now - cpu_started_at > _MEASUREMENT_S:
                    break
        previous_at = time.process_time()
    return median(steps), (time.perf_counter() - wall_started_at) / (now - cpu_started_at)


def _fit_factors(expected: NDArray[np.float64], measured_s: NDArray[np.float64]) -> list[float]:
    """Fit the factors to the measured times, by regularized least squares of the relative errors.

    Args:
        expected: seconds on the reference machine, (trainings, groups).
        measured_s: on this machine, (trainings,).
    """
    common_factor = float(np.median(measured_s / expected.sum(axis=1)))  # a common factor for all groups
    shares = common_factor * expected / measured_s[:, None]
    groups = len(work.GROUPS)
    rows = np.concatenate([shares, np.sqrt(_REGULARIZATION) * np.eye(groups)])
    targets = np.concatenate([np.ones(len(measured_s)), np.full(groups, np.sqrt(_REGULARIZATION))])
    solution = np.linalg.lstsq(rows, targets, rcond=None)[0]
    return [
        round(float(np.clip(common_factor * factor, common_factor / 5, min(common_factor * 5, _MAX_FACTOR))), 4)
        for factor in solution
    ]
