"""The base of classifier and regressor: one network that learns from examples with targets."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Unpack

import numpy as np

from engine.autograd.graph import Array
from engine.autograd.tape import GradientTape
from engine.data import Examples
from engine.evaluation.diagnostics import activation_metrics, activations, probe
from engine.memory import training_arithmetic
from engine.nn.containers import Sequential
from engine.nn.losses import Loss, per_image
from engine.optim.optimizer import Optimizer
from engine.optim.schedules import Schedule
from engine.replay import Replay
from engine.trainers.trainer import Epoch, RunSettings, Trained, Trainer

_EVALUATION_BATCH = 500
"""Evaluation chunk size: large enough for efficient matrix products, small enough for the cache."""
_EVALUATED_NUMBERS = 2**21
"""Maximum number of values that a layer may output per chunk: convolutions exceed the cache long before 500 images."""


class SupervisedTrainer(Trainer):
    """Base of the trainers of one network on examples with targets.

    A subclass sets ``_train_targets``, the targets of all training examples as the loss takes them.

    Args:
        model: (batch, features) to (batch, units); its last activation must match ``loss``.
        schedule: its factor multiplies the optimizer's learning rate in each step.
        settings: see :class:`Trainer`.

    Raises:
        SettingError: the loss does not match the model's last activation, or a setting is out of range.
    """

    input_draws = "augment"
    _train_targets: Array

    def __init__(
        self,
        model: Sequential,
        loss: Loss,
        optimizer: Optimizer,
        schedule: Schedule,
        *,
        train: Examples,
        validation: Examples,
        **settings: Unpack[RunSettings],
    ) -> None:
        loss.check_activation(model.activation)
        self.model = model
        self.loss = loss
        self._score = loss.plain()
        self.trained = [Trained("", model, optimizer, schedule)]
        self.validation = validation
        self.best_epoch: int | None = None
        super().__init__(train, loss.reduction, **settings)

    def _train_batch(self, replay: Replay, batch: Array, buffer: Array, step: int, epoch: Epoch) -> None:
        inputs = self._batch_inputs(batch, buffer, epoch)
        value, outputs = epoch.arithmetic.run(self._take_step, replay, inputs, batch, step, epoch)
        epoch.add("train_loss", value * len(batch), len(batch))
        self._add_batch_scores(outputs, batch, epoch)

    def _take_step(self, replay: Replay, inputs: Array, batch: Array, step: int, epoch: Epoch) -> tuple[float, Array]:
        """Update the network; returns the mean loss and the outputs."""
        targets = self._train_targets[batch]
        loss, outputs, *gradients = replay(self._loss_and_gradients, inputs, targets, rng=epoch.dropout)
        value = per_image(loss, self.loss.reduction, len(batch))
        self._check_finite("train_loss", value, step)
        self._update({0: gradients}, len(batch), step, epoch)
        return value, outputs

    def _batch_inputs(self, batch: Array, buffer: Array, epoch: Epoch) -> Array:
        return self.train.inputs(batch, self.dtype, buffer)

    @abstractmethod
    def _add_batch_scores(self, outputs: Array, batch: Array, epoch: Epoch) -> None:
        """Add the training metrics of a batch besides the loss."""

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

    def _scored_chunks(self, data: Examples, targets: Array) -> Iterator[tuple[slice, Array, float]]:
        """The examples in chunks, each with the outputs and the sum of the plain losses of its examples."""
        largest = max(math.prod(shape) for shape in self.model.layer_shapes)
        count = max(1, min(_EVALUATION_BATCH, _EVALUATED_NUMBERS // largest))
        for start in range(0, len(data), count):
            chunk = slice(start, start + count)
            with training_arithmetic():
                outputs = np.asarray(self._outputs(data.inputs(chunk, self.dtype), training=False))
                loss = self._score(outputs, targets[chunk])
            yield chunk, outputs, per_image(loss, self._score.reduction, len(outputs)) * len(outputs)

    def _network_metrics(self, epoch: Epoch) -> dict[str, float]:
        """The learning rate, gradient norms and activations of the network after an epoch."""
        outputs = activations(self.model, self.validation.inputs(probe(self.validation), self.dtype))
        rates = {"learning_rate": epoch.rates[0]}
        return rates | epoch.norms[0].metrics() | activation_metrics(self.model, outputs)
