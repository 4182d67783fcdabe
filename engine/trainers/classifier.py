"""Training a classifier: read :meth:`ClassifierTrainer.run` from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import DTypeLike

from engine import memory, ops
from engine.augmentation import Augmentation
from engine.autograd.graph import Array
from engine.autograd.tape import GradientTape
from engine.checkpoint import State
from engine.data import Examples, ImageData, batch_count, batches, check_labels, generator_for
from engine.errors import CheckpointError, DataError, ShapeError
from engine.evaluation.diagnostics import GradientNorms, activation_metrics, activations, probe
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
from engine.nn.losses import Loss, mean_gradient_scale, per_image
from engine.optim.accumulation import Accumulation
from engine.optim.averaging import AveragedWeights
from engine.optim.optimizer import Optimizer
from engine.optim.schedules import Schedule
from engine.replay import Replay
from engine.trainers.early_stopping import EarlyStopping, StoppedEarly
from engine.trainers.progress import (
    Progress,
    check_dtype,
    check_parts,
    present_parts,
    unchanged_on_error,
    under_prefix,
    with_prefix,
)
from engine.trainers.reports import BatchDone, EpochDone

_EVALUATION_BATCH = 500
"""Evaluation chunk size: large enough for efficient matrix products, small enough for the cache."""
_EVALUATED_NUMBERS = 2**21
"""Maximum number of values that a layer may output per chunk: convolutions exceed the cache long before 500 images."""


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


class ClassifierTrainer:
    """Trains a classifier.

    Args:
        model: (batch, pixels) to (batch, classes); its last activation must match ``loss``.
        schedule: its factor multiplies the optimizer's learning rate in each step.
        train, validation: images, or rows of a table, with labels.
        seed: with the epoch, the source of all random numbers.
        max_shift, flip, cutout: random augmentations, see :class:`engine.augmentation.Augmentation`.
        accumulate: number of batches per update. The last update of an epoch uses the remaining batches.
        average_decay: validate and predict with averaged weights (:mod:`engine.optim.averaging`); None: with the last
            weights.
        early_stopping: ends the run when a metric stops improving; None: never.
        dtype: of the inputs; must be the dtype of the model.
        replay: trace a step once and replay it (:mod:`engine.replay`), with the same bits; False always uses the tape.

    Raises:
        DataError: labels are missing or out of range.
        ShapeError: the images do not have the model's number of inputs.
        SettingError: the loss does not match the model's last activation, or a setting is out of range.
    """

    def __init__(
        self,
        model: Sequential,
        loss: Loss,
        optimizer: Optimizer,
        schedule: Schedule,
        *,
        train: Examples,
        validation: Examples,
        epochs: int,
        batch_size: int,
        shuffle: bool,
        seed: int,
        max_shift: int = 0,
        flip: bool = False,
        cutout: int = 0,
        accumulate: int = 1,
        average_decay: float | None = None,
        early_stopping: EarlyStopping | None = None,
        dtype: DTypeLike = np.float32,
        replay: bool = True,
    ) -> None:
        loss.check_activation(model.activation)
        self.augmentation = Augmentation(max_shift, flip, cutout)
        self.augmentation.check(train.sides)
        self._train_labels = _labels(train, model, "training")
        self._validation_labels = _labels(validation, model, "validation")
        self._train_targets = loss.targets(self._train_labels, model.units, dtype)
        self.model = model
        self.loss = loss
        self._score = loss.plain()
        self.optimizer = optimizer
        self.schedule = schedule
        self.train = train
        self.validation = validation
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.dtype = np.dtype(dtype)
        check_dtype(self.dtype, model)
        self.replay = replay
        self.best_accuracy: float | None = None
        self.best_loss: float | None = None
        self.best_epoch: int | None = None
        self._accumulation = Accumulation(accumulate, loss.reduction)
        self._average = AveragedWeights(model, average_decay)
        self._progress = Progress(epochs, batch_count(len(train), batch_size), early_stopping)

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return self._progress.epoch

    @property
    def stopped_early(self) -> StoppedEarly | None:
        """Why the run ended before its last epoch; None if it did not."""
        return self._progress.stopped_early

    def run(self) -> Iterator[BatchDone | EpochDone]:
        """Train from the first unfinished epoch to the last, or until early stopping. Leaving the loop cancels.

        Raises:
            DivergedError: the loss, or after an epoch a weight, is not finite.
            EngineError: an earlier loop was left in the middle of an epoch, and no state was loaded since.
        """
        progress = self._progress
        progress.require_whole_epoch("run")
        parameters, arrays = self.model.parameters, self.model.named_arrays()
        x = memory.empty((min(self.batch_size, len(self.train)), self.train.features), self.dtype)
        replay = Replay([x, *parameters], changing=self.model.buffers, enabled=self.replay)
        while not progress.over:
            progress.underway = True
            self._accumulation.clear()
            replay.verify_again()
            step, total_loss, hits, rate = progress.step, 0.0, 0, 0.0
            norms = GradientNorms(self.model, progress.steps_per_epoch)
            dropout = generator_for(self.seed, "dropout", progress.epoch)
            augment = generator_for(self.seed, "augment", progress.epoch)
            for batch in batches(
                len(self.train), self.batch_size, seed=self.seed, epoch=progress.epoch, shuffle=self.shuffle
            ):
                changes = self.augmentation.draw(augment, len(batch), self.train.sides)
                inputs = self.train.inputs(batch, self.dtype, x if len(batch) == len(x) else x[: len(batch)], changes)
                with training_arithmetic():
                    loss, outputs, *gradients = replay(
                        self._loss_and_gradients, inputs, self._train_targets[batch], rng=dropout
                    )
                    value = per_image(loss, self.loss.reduction, len(batch))
                    progress.check_finite("train_loss", value, step)
                    if norms.is_due(step - progress.step):
                        norms.add(gradients, mean_gradient_scale(self.loss.reduction, len(batch)))
                    rate = self.optimizer.learning_rate * self.schedule(step, progress.steps_per_epoch, progress.steps)
                    self._accumulation.add("model", gradients, len(batch))
                    if self._accumulation.completes(step, progress.steps_per_epoch):
                        self.optimizer.apply(parameters, self._accumulation.take("model"), rate)
                        self._average.update(self._accumulation.update_of(step, progress.steps_per_epoch))
                hits += int(np.count_nonzero(outputs.argmax(axis=1) == self._train_labels[batch]))
                del loss, outputs, gradients  # they keep the memory of the replay, which the next step may release
                step += 1
                total_loss += value * len(batch)
                yield BatchDone(progress.epoch + 1, step, progress.steps)

            progress.check_weights(self.model, arrays, step)
            with self._average.in_use():
                validation_loss, predictions, scores = self._evaluate(self.validation, self._validation_labels)
            progress.check_finite("val_loss", validation_loss, step)
            metrics = {
                "train_loss": total_loss / len(self.train),
                "train_accuracy": hits / len(self.train),
                "val_loss": validation_loss,
                "val_accuracy": accuracy(self._validation_labels, predictions),
                "learning_rate": rate,
            } | self._diagnostics(norms)
            confusion = confusion_matrix(self._validation_labels, predictions, self.model.units)
            scores |= {"val_balanced_accuracy": balanced_accuracy(confusion), "val_macro_f1": macro_f1(confusion)}
            is_best = self._is_better(metrics["val_accuracy"], validation_loss)
            if is_best:
                self.best_accuracy, self.best_loss = metrics["val_accuracy"], validation_loss
                self.best_epoch = progress.epoch + 1
            yield replace(progress.finish_epoch(metrics, confusion, is_best), scores=scores)

    def state_dict(self) -> State:
        """Weights, optimizer state, epoch and best result: everything needed to continue with the same bits.

        Raises:
            EngineError: in the middle of an epoch.
        """
        self._progress.require_whole_epoch("state_dict")
        tensors = self._average.state_dict() | with_prefix("optimizer.", self.optimizer.state_dict())
        best = {"best_accuracy": self.best_accuracy, "best_loss": self.best_loss, "best_epoch": self.best_epoch}
        return State(tensors, self._progress.state_dict("classifier") | best | present_parts(tensors, self._parts))

    def load_state_dict(self, state: State) -> None:
        """Load the state of a trainer with the same settings.

        Raises:
            CheckpointError: the state does not fit. The trainer is then unchanged.
        """
        check_parts(state, ["layers."], self._parts, ignored=["training.layers."])
        with unchanged_on_error(self._average.arrays, self.optimizer, *self._progress.parts):
            self._load_state_dict(state)

    def _load_state_dict(self, state: State) -> None:
        self._progress.load(state.state, "classifier")
        best = {name: state.state.get(name) for name in ("best_accuracy", "best_loss", "best_epoch")}
        if not _is_valid_best(**best, epochs=self.epoch):
            listed = ", ".join(f"{name} {value!r}" for name, value in best.items())
            raise CheckpointError(f"the best of {self.epoch} epochs is invalid: {listed}")
        self._average.load_state_dict(state.tensors)
        self.optimizer.load_state_dict(under_prefix("optimizer.", state), self.model.parameters)
        self.best_accuracy, self.best_loss, self.best_epoch = best.values()

    def _is_better(self, accuracy: float, loss: float) -> bool:
        """Whether an epoch is better than the best so far; of equally accurate ones, that with the lower loss is.

        Few validation examples soon have the same accuracy in many epochs, of which the first are the least trained.
        """
        if self.best_accuracy is None or self.best_loss is None:
            return True
        return (accuracy, -loss) > (self.best_accuracy, -self.best_loss)

    @property
    def _parts(self) -> list[str]:
        """The parts of a state besides the weights, by the prefixes of their names."""
        return ["optimizer."] if self._average.decay is None else ["optimizer.", "training.layers."]

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

    def _loss_and_gradients(self, x: Array, targets: Array, *, rng: np.random.Generator | None) -> list[Array]:
        """The part of a step before the update: the loss, the outputs, and the gradient of each parameter."""
        with GradientTape() as tape:
            outputs = self._outputs(x, training=True, rng=rng)
            loss = self.loss(outputs, targets)
        return [np.asarray(array) for array in (loss, outputs, *tape.gradient(loss, self.model.parameters))]

    def _outputs(self, x: Array, *, training: bool, rng: np.random.Generator | None = None) -> Array:
        forward = self.model.logits if self.loss.on_logits else self.model
        outputs: Array = forward(x, training=training, rng=rng)
        return outputs

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
        largest = max(math.prod(shape) for shape in self.model.layer_shapes)
        count = max(1, min(_EVALUATION_BATCH, _EVALUATED_NUMBERS // largest))
        for start in range(0, len(data), count):
            chunk = slice(start, start + count)
            with training_arithmetic():
                outputs = np.asarray(self._outputs(data.inputs(chunk, self.dtype), training=False))
                loss = self._score(outputs, labels[chunk])
            total += per_image(loss, self._score.reduction, len(outputs)) * len(outputs)
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

    def _diagnostics(self, norms: GradientNorms) -> dict[str, float]:
        """The diagnostics of the epoch (:mod:`engine.evaluation.diagnostics`)."""
        outputs = activations(self.model, self.validation.inputs(probe(self.validation), self.dtype))
        return norms.metrics() | activation_metrics(self.model, outputs)


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
