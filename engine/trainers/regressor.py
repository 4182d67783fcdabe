"""Training a regressor: the scores of a batch, and the evaluation after an epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np

from engine.autograd.graph import Array
from engine.data import Examples, TableData
from engine.errors import CheckpointError, DataError, SettingError, ShapeError
from engine.evaluation.metrics import regression_scores
from engine.memory import training_arithmetic
from engine.nn.containers import Sequential
from engine.nn.losses import Loss
from engine.optim.optimizer import Optimizer
from engine.optim.schedules import Schedule
from engine.trainers.reports import EpochDone
from engine.trainers.supervised import SupervisedTrainer
from engine.trainers.trainer import Epoch, RunSettings

__all__ = ["RegressorTrainer"]

_CLIP_LIMIT = 1e6


class RegressorTrainer(SupervisedTrainer):
    """Trains a network with one output to predict a number.

    The network learns the standardised target, ``(target - mean) / scale``, so that learning rates do not depend on its
    unit. Metrics are in the unit of the target, except the loss.

    Args:
        model: (batch, features) to (batch, 1).
        train, validation: rows of a table, with targets.
        mean, scale: of the target; usually the mean and the standard deviation of the training part.
        settings: see :class:`Trainer`.

    Raises:
        DataError: targets are missing.
        ShapeError: the model has not one output, or another number of inputs than the rows.
        SettingError: a setting is out of range.
    """

    kind = "regressor"

    def __init__(
        self,
        model: Sequential,
        loss: Loss,
        optimizer: Optimizer,
        schedule: Schedule,
        *,
        train: TableData,
        validation: TableData,
        mean: float,
        scale: float,
        **settings: Unpack[RunSettings],
    ) -> None:
        if not (math.isfinite(mean) and 0 < scale < math.inf):
            raise SettingError(f"mean {mean} and scale {scale} must be finite, the scale above 0", setting="scale")
        if model.units != 1:
            raise ShapeError(f"a regressor has one output, not {model.units}")
        self.mean, self.scale = mean, scale
        self.best_rmse: float | None = None
        super().__init__(model, loss, optimizer, schedule, train=train, validation=validation, **settings)
        self._train_targets = self._standardised(_targets(train, model, "training"))
        self._validation_targets = _targets(validation, model, "validation")

    def _standardised(self, targets: Array) -> Array:
        """The targets as the network learns them, (n, 1); clipped where single precision would overflow, which only
        changes the loss of rows that were not used for training."""
        with training_arithmetic():
            standardised = (targets - self.mean) / self.scale
        return np.clip(standardised, -_CLIP_LIMIT, _CLIP_LIMIT).astype(self.dtype)[:, None]

    def _add_batch_scores(self, outputs: Array, batch: Array, epoch: Epoch) -> None:
        errors = (outputs - self._train_targets[batch]).astype(np.float64)
        epoch.add("squares", float(np.sum(errors * errors)), len(batch))
        epoch.add("train_mae", self.scale * float(np.sum(np.abs(errors))), len(batch))

    def _evaluate_epoch(self, epoch: Epoch) -> EpochDone:
        with self._average.in_use():
            validation_loss, scores = self._evaluate(self.validation, self._validation_targets)
        for name, value in (("val_loss", validation_loss), ("val_rmse", scores["rmse"])):
            self._check_finite(name, value, self._first_step + self._steps_per_epoch)
        means = epoch.means()
        squares, spread = means.pop("squares"), float(np.var(self._train_targets, dtype=np.float64))
        metrics = (
            means
            | {"train_rmse": self.scale * math.sqrt(squares), "train_r2": 1 - squares / spread if spread else math.nan}
            | {"val_loss": validation_loss}
            | {f"val_{name}": scores.pop(name) for name in ("rmse", "mae", "r2")}
            | self._network_metrics(epoch)
        )
        rmse = metrics["val_rmse"]
        is_best = self.best_rmse is None or rmse < self.best_rmse
        if is_best:
            self.best_rmse, self.best_epoch = rmse, self.epoch + 1
        errors = {f"val_{name}": value for name, value in scores.items()}
        return self._finish_epoch(metrics, is_best=is_best, scores=errors)

    def _results(self) -> dict[str, Any]:
        return {"best_rmse": self.best_rmse, "best_epoch": self.best_epoch}

    def _checked_results(self, state: Mapping[str, Any]) -> dict[str, Any]:
        best = {name: state.get(name) for name in self._results()}
        rmse, epoch = best.values()
        is_valid = isinstance(rmse, float) and rmse >= 0 and type(epoch) is int and 1 <= epoch <= self.epoch
        if not (is_valid or rmse is epoch is None):
            raise CheckpointError(f"the best of {self.epoch} epochs is invalid: {best}")
        return best

    def test(self, data: Examples) -> dict[str, float]:
        """``test_loss`` and the :func:`~engine.evaluation.metrics.regression_scores` of the current weights on rows
        that were not used for training, each with the prefix ``test_``.

        Raises:
            DataError, ShapeError: the rows do not fit the model.
        """
        targets = _targets(data, self.model, "test")
        with self._average.in_use():
            loss, scores = self._evaluate(data, targets)
        return {"test_loss": loss} | {f"test_{name}": value for name, value in scores.items()}

    def _evaluate(self, data: Examples, targets: Array) -> tuple[float, dict[str, float]]:
        """The mean plain loss per row, and the scores in the unit of the target."""
        total, outputs = 0.0, []
        for _, chunk, loss in self._scored_chunks(data, self._standardised(targets)):
            total += loss
            outputs.append(chunk[:, 0].astype(np.float64))
        with training_arithmetic():
            return total / len(data), regression_scores(targets, self.mean + self.scale * np.concatenate(outputs))


def _targets(data: Examples, model: Sequential, role: str) -> Array:
    if not isinstance(data, TableData) or data.targets is None:
        raise DataError(f"the {role} rows have no targets")
    if data.features != model.inputs:
        raise ShapeError(f"the {role} rows have {data.features} values, but the model has {model.inputs} inputs")
    return data.targets
