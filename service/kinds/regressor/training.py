"""How regressors are trained."""

from __future__ import annotations

from typing import Final, assert_never

import engine
from engine.nn.losses import Loss
from service.datasets.cache import Dataset
from service.datasets.tables.preprocessing import Preprocessing
from service.kinds.regressor.spec import RegressorLoss, RegressorLossName, RegressorSpec
from service.kinds.supervised.model import network
from service.kinds.supervised.training import run_settings
from workers.training import build
from workers.training.kinds import TrainingOfKind


def _trainer(resolved: RegressorSpec, dataset: Dataset, preprocessing: Preprocessing | None) -> engine.RegressorTrainer:
    if preprocessing is None or preprocessing.target is None:
        raise ValueError(f"{dataset.info.name} has no number to predict")
    return engine.RegressorTrainer(
        network(resolved, (1, preprocessing.width), build.initializer(resolved.initializer)),
        _loss(resolved.loss),
        build.optimizer(resolved.optimizer),
        build.schedule(resolved.schedule),
        train=build.rows(dataset, dataset.train, resolved, preprocessing),
        validation=build.rows(dataset, dataset.validation, resolved, preprocessing),
        mean=preprocessing.target["mean"],
        scale=preprocessing.target["scale"],
        **run_settings(resolved),
    )


def _loss(loss: RegressorLoss) -> Loss:
    match loss.name:
        case RegressorLossName.SQUARED_ERROR:
            return engine.SquaredError(loss.reduction.value)
        case RegressorLossName.ABSOLUTE_ERROR:
            return engine.AbsoluteError(loss.reduction.value)
        case RegressorLossName.HUBER:
            return engine.Huber(loss.reduction.value)
        case _:
            assert_never(loss.name)


TRAINING: Final = TrainingOfKind[RegressorSpec](trainer=_trainer, is_tested=True)
