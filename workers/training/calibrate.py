"""Calibration: measures the speed of this machine with steps of four small trainings.

Each training spends most of its time in one kind of work: dense products, convolutions, elementwise work, overhead of
calls. Their times relative to the reference machine give a factor for each kind (``service.spec.estimation.work``).
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

_SIDE: Final = 28
_IMAGES: Final = 1000
_WARM_UP: Final = 3
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
    pixels = rng.integers(0, 256, (_IMAGES, _SIDE, _SIDE), np.uint8)
    labels = (np.arange(_IMAGES) % 10).astype(np.uint8)
    dataset = Dataset(BUILT_IN["mnist-10k"].info, Examples(pixels, labels), Examples(pixels[:1], labels[:1]), sha256="")
    expected, took, waited = [], [], []
    for training in TRAININGS.values():
        spec = resolve(
            {"kind": "classifier", "augmentation": {"max_shift": 0}, "optimizer": {"nesterov": False}, **training}
            | {"epochs": 1000}
        )
        a_step = Shape(rows=_SIDE, columns=_SIDE, classes=10, train_count=spec.batch_size)
        counted = work.seconds(work.count(spec, a_step, epochs=0, steps=1), {})
        expected.append([counted[group] for group in work.GROUPS])
        a_step_s, ratio = _steps(build.trainer(spec, dataset))
        took.append(a_step_s)
        waited.append(ratio)
    factors = dict(zip(work.GROUPS, _factors(np.array(expected), np.array(took)), strict=True))
    return factors | {work.CONTENTION: round(max(1.0, median(waited)), 4)}


def _steps(trainer: build.Trainer) -> tuple[float, float]:
    """The CPU time of a step in seconds, and the ratio of wall-clock time to CPU time."""
    steps: list[float] = []
    clock = at = 0.0
    for report in trainer.run():
        now = time.process_time()
        if isinstance(report, BatchDone):
            if report.step == _WARM_UP:
                clock, began = time.perf_counter(), now
            elif report.step > _WARM_UP:
                steps.append(now - at)
                if len(steps) >= _MIN_STEPS and now - began > _MEASUREMENT_S:
                    break
        at = time.process_time()
    return median(steps), (time.perf_counter() - clock) / (now - began)


def _factors(expected: NDArray[np.float64], took: NDArray[np.float64]) -> list[float]:
    """Fit the factors to the measured times, by regularized least squares of the relative errors.

    Args:
        expected: seconds on the reference machine, (trainings, groups).
        took: seconds on this machine, (trainings,).
    """
    whole = float(np.median(took / expected.sum(axis=1)))  # a common factor for all groups
    shares = whole * expected / took[:, None]
    groups = len(work.GROUPS)
    rows = np.concatenate([shares, np.sqrt(_REGULARIZATION) * np.eye(groups)])
    wanted = np.concatenate([np.ones(len(took)), np.full(groups, np.sqrt(_REGULARIZATION))])
    found = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    return [round(float(np.clip(whole * one, whole / 5, min(whole * 5, _MAX_FACTOR))), 4) for one in found]
