"""What trainings of classifiers and regressors share."""

from __future__ import annotations

import numpy as np

import engine
from engine.trainers.trainer import RunSettings
from service.kinds.supervised.spec import EarlyStopping, SupervisedSpec
from service.schema.metrics import Goal
from service.spec.metric_info import METRICS
from workers.training import build


def run_settings(resolved: SupervisedSpec) -> RunSettings:
    """The settings of a run of any trainer of this kind."""
    return {
        "epochs": resolved.epochs,
        "batch_size": resolved.batch_size,
        "shuffle": resolved.shuffle,
        "seed": resolved.seed,
        "accumulate": resolved.accumulate,
        "average_decay": resolved.average_decay,
        "early_stopping": _early_stopping(resolved.early_stopping),
        "dtype": np.dtype(resolved.dtype.value),
        "verify_steps": build.VERIFY_STEPS,
    }


def _early_stopping(settings: EarlyStopping | None) -> engine.EarlyStopping | None:
    if settings is None:
        return None
    return engine.EarlyStopping(
        settings.metric.value,
        higher_is_better=METRICS[settings.metric.value].goal is Goal.MAXIMIZE,
        patience=settings.patience,
        min_delta=settings.min_delta,
    )
