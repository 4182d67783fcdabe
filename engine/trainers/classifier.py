"""Training a classifier: one step, and the evaluation after an epoch. The loop around them is :meth:`Trainer.run`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from engine import ops
from engine.augmentation import Augmentation
from engine.autograd.graph import Array
from engine.data import Examples, ImageData, check_labels
from engine.errors import CheckpointError, DataError, ShapeError
from engine.evaluation.metrics import (
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    log_likelihoods,
    macro_f1,
    roc_auc,
)
from engine.memory import training_arithmetic
from engine.nn.activations import Activation
from engine.nn.containers import Sequential
from engine.nn.losses import Loss
from engine.optim.optimizer import Optimizer
from engine.optim.schedules import Schedule
from engine.trainers.reports import EpochDone
from engine.trainers.supervised import SupervisedTrainer
from engine.trainers.trainer import Epoch, RunSettings

__all__ = ["ClassifierSamples", "ClassifierTrainer"]


@dataclass(frozen=True, slots=True)
class ClassifierSamples:
    """The first validation images, and the model's predictions for them.

    Attributes:
        images: uint8 (n, height, width), in colour (n, height, width, 3).
        labels, predictions: int64 (n,).
        confidences: (n,) in [0, 1]: the model's output for its prediction.
    """

    images: Array
    labels: Array
    predictions: Array
    confidences: Array


class ClassifierTrainer(SupervisedTrainer):
    """Trains a classifier.

    Args:
        model: (batch, pixels) to (batch, classes); its last activation must match ``loss``.
        schedule: its factor multiplies the optimizer's learning rate in each step.
        train, validation: images, or rows of a table, with labels.
        max_shift, flip, cutout: random augmentations, see :class:`engine.augmentation.Augmentation`.
        settings: see :class:`Trainer`.

    Raises:
        DataError: labels are missing or out of range.
        ShapeError: the images do not have the model's number of inputs.
        SettingError: the loss does not match the model's last activation, or a setting is out of range.
    """

    kind = "classifier"

    def __init__(
        self,
        model: Sequential,
        loss: Loss,
        optimizer: Optimizer,
        schedule: Schedule,
        *,
        train: Examples,
        validation: Examples,
        max_shift: int = 0,
        flip: bool = False,
        cutout: int = 0,
        **settings: Unpack[RunSettings],
    ) -> None:
        self.augmentation = Augmentation(max_shift, flip, cutout)
        self.augmentation.check(train.sides)
        self._train_labels = _labels(train, model, "training")
        self._validation_labels = _labels(validation, model, "validation")
        self.best_accuracy: float | None = None
        self.best_loss: float | None = None
        super().__init__(model, loss, optimizer, schedule, train=train, validation=validation, **settings)
        self._train_targets = loss.targets(self._train_labels, model.units, self.dtype)

    def _batch_inputs(self, batch: Array, buffer: Array, epoch: Epoch) -> Array:
        changes = self.augmentation.draw(epoch.inputs, len(batch), self.train.sides)
        return self.train.inputs(batch, self.dtype, buffer, changes)

    def _add_batch_scores(self, outputs: Array, batch: Array, epoch: Epoch) -> None:
        hits = np.count_nonzero(outputs.argmax(axis=1) == self._train_labels[batch])
        epoch.add("train_accuracy", float(hits), len(batch))

    def _evaluate_epoch(self, epoch: Epoch) -> EpochDone:
        with self._average.in_use():
            validation_loss, predictions, scores = self._evaluate(self.validation, self._validation_labels)
        self._check_finite("val_loss", validation_loss, self._first_step + self._steps_per_epoch)
        validation_accuracy = accuracy(self._validation_labels, predictions)
        metrics = (
            epoch.means()
            | {"val_loss": validation_loss, "val_accuracy": validation_accuracy}
            | self._network_metrics(epoch)
        )
        confusion = confusion_matrix(self._validation_labels, predictions, self.model.units)
        scores |= {"val_balanced_accuracy": balanced_accuracy(confusion), "val_macro_f1": macro_f1(confusion)}
        is_best = self._is_better(validation_accuracy, validation_loss)
        if is_best:
            self.best_accuracy, self.best_loss = validation_accuracy, validation_loss
            self.best_epoch = self.epoch + 1
        return self._finish_epoch(metrics, confusion, is_best=is_best, scores=scores)

    def _results(self) -> dict[str, Any]:
        return {"best_accuracy": self.best_accuracy, "best_loss": self.best_loss, "best_epoch": self.best_epoch}

    def _checked_results(self, state: Mapping[str, Any]) -> dict[str, Any]:
        best = {name: state.get(name) for name in self._results()}
        if not _is_valid_best(**best, epochs=self.epoch):
            listed = ", ".join(f"{name} {value!r}" for name, value in best.items())
            raise CheckpointError(f"the best of {self.epoch} epochs is invalid: {listed}")
        return best

    def _is_better(self, accuracy: float, loss: float) -> bool:
        """Whether an epoch is better than the best so far; of equally accurate ones, that with the lower loss is.

        Few validation examples soon have the same accuracy in many epochs, of which the first are the least trained.
        """
        if self.best_accuracy is None or self.best_loss is None:
            return True
        return (accuracy, -loss) > (self.best_accuracy, -self.best_loss)

    def samples(self, count: int) -> ClassifierSamples:
        """Predictions for the first ``count`` validation images (all, if there are fewer).

        Raises:
            DataError: the trainer uses a table.
        """
        if not isinstance(self.validation, ImageData):
            raise DataError("a table has no images")
        chosen = slice(0, count)
        with self._average.in_use():
            outputs = np.asarray(self.model(self.validation.inputs(chosen, self.dtype)))
        return ClassifierSamples(
            images=self.validation.images[chosen].copy(),
            labels=self._validation_labels[chosen].copy(),
            predictions=np.argmax(outputs, axis=1),
            confidences=np.max(outputs, axis=1),
        )

    def test(self, data: Examples) -> dict[str, float]:
        """``test_loss`` and ``test_accuracy`` of the current weights on examples that were not used for training.

        Raises:
            DataError, ShapeError: the examples do not fit the model.
        """
        labels = _labels(data, self.model, "test")
        with self._average.in_use():
            loss, predictions, _ = self._evaluate(data, labels)
        return {"test_loss": loss, "test_accuracy": accuracy(labels, predictions)}

    def _evaluate(self, data: Examples, labels: Array) -> tuple[float, Array, dict[str, float]]:
        """The mean plain loss per example, the predictions, and the scores of the probabilities."""
        total, predictions, likelihood, positive = 0.0, [], 0.0, []
        for chunk, outputs, loss in self._scored_chunks(data, labels):
            total += loss
            predictions.append(outputs.argmax(axis=1))
            probabilities = self._probabilities(outputs)
            likelihood += float(np.sum(log_likelihoods(labels[chunk], probabilities)))
            if self.model.units == 2:
                positive.append(probabilities[:, 1])
        scores = {"val_log_loss": -likelihood / len(data)}
        if positive:
            scores["val_roc_auc"] = roc_auc(labels, np.concatenate(positive))
        return total / len(data), np.concatenate(predictions), scores

    def _probabilities(self, outputs: Array) -> Array:
        """Class probabilities from the model's outputs or logits: (n, classes) in [0, 1]."""
        with training_arithmetic():
            if self.loss.on_logits:
                last = ops.sigmoid if self.model.activation is Activation.SIGMOID else ops.softmax
                outputs = last.forward(outputs)
            return np.asarray(np.clip(np.nan_to_num(outputs), 0, 1))


def _is_valid_best(*, best_accuracy: object, best_loss: object, best_epoch: object, epochs: int) -> bool:
    if best_accuracy is None or best_loss is None or best_epoch is None:
        return best_accuracy is best_loss is best_epoch
    is_accuracy = isinstance(best_accuracy, float) and 0 <= best_accuracy <= 1
    is_loss = isinstance(best_loss, float) and math.isfinite(best_loss)
    return is_accuracy and is_loss and type(best_epoch) is int and 1 <= best_epoch <= epochs


def _labels(data: Examples, model: Sequential, role: str) -> Array:
    if data.labels is None:
        raise DataError(f"the {role} images have no labels")
    if data.features != model.inputs:
        raise ShapeError(f"the {role} images have {data.features} pixels, but the model has {model.inputs} inputs")
    check_labels(data.labels, len(data), model.units)
    return data.labels
