"""Training a generative adversarial network: read :meth:`GanTrainer.run` from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from engine import memory, ops
from engine.autograd.graph import Array
from engine.autograd.tape import GradientTape
from engine.checkpoint import State
from engine.data import ImageData, batch_count, batches, generator_for
from engine.errors import DataError, SettingError, ShapeError
from engine.evaluation.diagnostics import (
    PROBE_IMAGES,
    GradientNorms,
    activation_metrics,
    activations,
    probe,
    sample_diversity,
)
from engine.nn.containers import Sequential
from engine.nn.losses import BinaryCrossEntropy, Reduction, mean_gradient_scale, per_image
from engine.optim.averaging import AveragedWeights
from engine.optim.optimizer import Optimizer
from engine.optim.schedules import Schedule
from engine.replay import Replay
from engine.trainers.early_stopping import EarlyStopping, StoppedEarly
from engine.trainers.progress import (
    Progress,
    check_dtype,
    check_parts,
    held_parts,
    unchanged_on_error,
    under_prefix,
    with_prefix,
)
from engine.trainers.reports import BatchDone, EpochDone


@dataclass(frozen=True, slots=True)
class Latent:
    """The noise that a generator starts from.

    Attributes:
        dim: numbers for one image.
        distribution: ``uniform`` in [-1, 1], or standard ``normal``.
    """

    dim: int
    distribution: Literal["uniform", "normal"] = "uniform"

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise SettingError(f"latent: dim {self.dim} must be positive", setting="dim")
        if self.distribution not in ("uniform", "normal"):
            raise SettingError(
                f"latent: distribution {self.distribution!r} is neither uniform nor normal", setting="distribution"
            )

    def draw(self, rng: np.random.Generator, count: int, dtype: DTypeLike) -> Array:
        """Noise for ``count`` images: (count, dim)."""
        shape = (count, self.dim)
        noise = rng.uniform(-1, 1, shape) if self.distribution == "uniform" else rng.standard_normal(shape)
        return noise.astype(dtype)


class GanTrainer:
    """Trains a generator against a discriminator (Goodfellow et al. 2014, with the non-saturating generator loss).

    Both losses of a step come from one pass of the discriminator over the fakes: both gradients are those of the
    weights before the step, and the generator is updated first. The discriminator's loss is the mean of its real and
    its fake part.

    Args:
        generator: (batch, latent.dim) to (batch, pixels), in the range of ``train.scale``.
        discriminator: (batch, pixels) to (batch, 1), ending with a sigmoid: how real an image looks.
        g_schedule, d_schedule: multiply the learning rates of the two optimizers, step by step.
        reduction: ``sum`` takes the gradients of the sum over the batch; reported losses are means either way.
        skip_every: do not update the discriminator in steps i with ``i % skip_every == 0``, i counting from 0 over
            the whole run. None: update it always.
        label_smoothing: s; the target for real images is 1 - s (one-sided, Salimans et al. 2016, section 3.4).
        seed: with the epoch, the source of all that is random.
        average_decay: make samples with an average of the generator's weights (:mod:`engine.optim.averaging`);
            None: with the last weights.
        early_stopping: ends the run when a metric no longer becomes better; None: never.
        replay: record a step once and replay it (:mod:`engine.replay`); False keeps to the plain tape. Same bits.

    Raises:
        ShapeError: the networks, the latent space and the images do not fit.
        SettingError: the discriminator does not end with one sigmoid, or a number is out of range.
    """

    def __init__(
        self,
        generator: Sequential,
        discriminator: Sequential,
        g_optimizer: Optimizer,
        d_optimizer: Optimizer,
        g_schedule: Schedule,
        d_schedule: Schedule,
        *,
        train: ImageData,
        latent: Latent,
        epochs: int,
        batch_size: int,
        shuffle: bool,
        seed: int,
        reduction: Reduction = "mean",
        skip_every: int | None = None,
        label_smoothing: float = 0.0,
        average_decay: float | None = None,
        early_stopping: EarlyStopping | None = None,
        dtype: DTypeLike = np.float32,
        replay: bool = True,
    ) -> None:
        sizes = (generator.inputs, generator.units, discriminator.inputs, discriminator.units)
        if sizes != (latent.dim, train.features, train.features, 1):
            raise ShapeError(
                f"generator {sizes[0]} -> {sizes[1]} and discriminator {sizes[2]} -> {sizes[3]} do not fit "
                f"{latent.dim} latent numbers, images of {train.features} pixels and one probability"
            )
        if skip_every is not None and skip_every < 2:
            raise SettingError(
                f"skip_every {skip_every} would never update the discriminator; it must be at least 2",
                setting="skip_every",
            )
        if not 0 <= label_smoothing < 1:
            raise SettingError(f"label_smoothing {label_smoothing} is not in [0, 1)", setting="label_smoothing")
        self._loss = BinaryCrossEntropy(reduction)
        self._loss.check_activation(discriminator.activation)
        self.generator = generator
        self.discriminator = discriminator
        self.g_optimizer = g_optimizer
        self.d_optimizer = d_optimizer
        self.g_schedule = g_schedule
        self.d_schedule = d_schedule
        self.train = train
        self.latent = latent
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.skip_every = skip_every
        self.label_smoothing = label_smoothing
        self.dtype = np.dtype(dtype)
        check_dtype(self.dtype, generator, discriminator)
        self.replay = replay
        self._average = AveragedWeights(generator, average_decay)
        self._progress = Progress(epochs, batch_count(len(train), batch_size), early_stopping)

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self._progress.epoch

    @property
    def stopped_early(self) -> StoppedEarly | None:
        """Why the run is over before its last epoch, if it is."""
        return self._progress.stopped_early

    def run(self) -> Iterator[BatchDone | EpochDone]:
        """Train from the first unfinished epoch to the last, or to an early stop. Leaving the loop cancels.

        The metrics are means over the epoch's images; ``d_loss`` and ``d_real`` over the steps that update the
        discriminator, since the others do not show it real images.

        Raises:
            DivergedError: a loss, or after an epoch a weight, is not finite.
            EngineError: an earlier loop was left in the middle of an epoch.
        """
        progress = self._progress
        progress.require_whole_epoch("run")
        reals = memory.empty((min(self.batch_size, len(self.train)), self.train.features), self.dtype)
        replay = Replay(
            [reals, *self.generator.parameters, *self.discriminator.parameters],
            changing=[*self.generator.buffers, *self.discriminator.buffers],
            enabled=self.replay,
        )
        while not progress.over:
            progress.underway = True
            step, means, rate = progress.step, _Means(), 0.0
            norms = [
                GradientNorms(network, progress.steps_per_epoch) for network in (self.generator, self.discriminator)
            ]
            latent = generator_for(self.seed, "latent", progress.epoch)
            dropout = generator_for(self.seed, "dropout", progress.epoch)
            for batch in batches(
                len(self.train), self.batch_size, seed=self.seed, epoch=progress.epoch, shuffle=self.shuffle
            ):
                noise = self.latent.draw(latent, len(batch), self.dtype)
                position = (step, progress.steps_per_epoch, progress.steps)
                rate = self.g_optimizer.learning_rate * self.g_schedule(*position)
                d_rate = self.d_optimizer.learning_rate * self.d_schedule(*position)
                with np.errstate(over="ignore", invalid="ignore"):  # the check of the losses says it better
                    if self.skip_every is None or step % self.skip_every != 0:
                        part = reals if len(batch) == len(reals) else reals[: len(batch)]
                        inputs = self.train.inputs(batch, self.dtype, out=part)
                        losses = replay(self._both_losses, noise, inputs, rng=dropout)
                    else:
                        losses = replay(self._generator_loss, noise, rng=dropout)
                    self._update(losses, len(batch), step, means, norms, rate, d_rate)
                    self._average.update(step)
                del losses  # with the gradients, before the next step makes others
                step += 1
                yield BatchDone(progress.epoch + 1, step, progress.steps)

            progress.check_weights(self.generator, step, "generator.")
            progress.check_weights(self.discriminator, step, "discriminator.")
            yield progress.finish_epoch(means.result() | {"learning_rate": rate} | self._diagnostics(norms))

    def _generator_loss(self, noise: Array, *, rng: np.random.Generator | None) -> list[Array]:
        """The generator's loss, the logits of the fakes, and the gradients of the generator."""
        with GradientTape(verify=False) as tape:
            fake_logits = self.discriminator.logits(
                self.generator(noise, training=True, rng=rng), training=True, rng=rng
            )
            loss = self._loss(fake_logits, 1.0)
        return _arrays(loss, fake_logits, *tape.gradient(loss, self.generator.parameters))

    def _both_losses(self, noise: Array, reals: Array, *, rng: np.random.Generator | None) -> list[Array]:
        """As :meth:`_generator_loss`, then the discriminator's loss, the logits of the reals, and its gradients."""
        with GradientTape(persistent=True, verify=False, keeps_graph=False) as tape:
            fake_logits = self.discriminator.logits(
                self.generator(noise, training=True, rng=rng), training=True, rng=rng
            )
            g_loss = self._loss(fake_logits, 1.0)
            real_logits = self.discriminator.logits(reals, training=True, rng=rng)
            d_loss = ops.multiply(
                ops.add(self._loss(real_logits, 1.0 - self.label_smoothing), self._loss(fake_logits, 0.0)), 0.5
            )
        # Each gradient walks only the records between its loss and its own weights.
        g_gradients = tape.gradient(g_loss, self.generator.parameters)
        d_gradients = tape.gradient(d_loss, self.discriminator.parameters)
        return _arrays(g_loss, fake_logits, *g_gradients, d_loss, real_logits, *d_gradients)

    def _update(
        self,
        losses: Sequence[Array],
        batch: int,
        step: int,
        means: _Means,
        norms: Sequence[GradientNorms],
        g_rate: float,
        d_rate: float,
    ) -> None:
        """Report the losses, and update the networks whose gradients are given: the generator first."""
        parts = (
            (self.generator, self.g_optimizer, g_rate, "g_loss", "d_fake", norms[0]),
            (self.discriminator, self.d_optimizer, d_rate, "d_loss", "d_real", norms[1]),
        )
        updates = []
        for network, optimizer, rate, loss_name, probability_name, measured in parts:
            if not losses:
                break
            parameters = network.parameters
            loss, logits, *rest = losses
            gradients, losses = rest[: len(parameters)], rest[len(parameters) :]
            self._report(means, loss_name, loss, batch, step)
            means.add(probability_name, _mean_probability(logits), batch)
            if measured.is_due(step - self._progress.step):
                measured.add(gradients, mean_gradient_scale(self._loss.reduction, batch))
            updates.append((optimizer, parameters, gradients, rate))
        for optimizer, parameters, gradients, rate in updates:
            optimizer.apply(parameters, gradients, rate)

    def _diagnostics(self, norms: Sequence[GradientNorms]) -> dict[str, float]:
        """What the epoch did to the inside of the networks (:mod:`engine.evaluation.diagnostics`)."""
        noise = self.latent.draw(generator_for(self.seed, "probe"), PROBE_IMAGES, self.dtype)
        reals = self.train.inputs(probe(self.train), self.dtype)
        made = activations(self.generator, noise)
        evaluated = activations(self.discriminator, np.concatenate([reals, made[-1]]))
        return (
            norms[0].metrics("g_", "generator.")
            | norms[1].metrics("d_", "discriminator.")
            | activation_metrics(self.generator, made, "g_", "generator.")
            | activation_metrics(self.discriminator, evaluated, "d_", "discriminator.")
            | {"sample_diversity": sample_diversity(made[-1], reals)}
        )

    def _report(self, means: _Means, name: str, loss: Array, batch: int, step: int) -> None:
        value = per_image(loss, self._loss.reduction, batch)
        self._progress.check_finite(name, value, step)
        means.add(name, value, batch)

    def state_dict(self) -> State:
        """Weights, optimizers, epoch: enough to continue with the same bits.

        Raises:
            EngineError: in the middle of an epoch.
        """
        self._progress.require_whole_epoch("state_dict")
        tensors = (
            with_prefix("generator.", self._average.state_dict())
            | with_prefix("discriminator.", self.discriminator.state_dict())
            | with_prefix("optimizer.generator.", self.g_optimizer.state_dict())
            | with_prefix("optimizer.discriminator.", self.d_optimizer.state_dict())
        )
        return State(tensors, self._progress.state_dict("gan") | held_parts(tensors, self._parts))

    def load_state_dict(self, state: State) -> None:
        """Continue from a state that a trainer with the same settings made.

        Raises:
            CheckpointError: it does not fit. The trainer is what it was.
        """
        check_parts(
            state,
            ["generator.layers.", "discriminator.layers."],
            self._parts,
            ignored=["generator.training.layers."],
        )
        g, d = self.generator, self.discriminator
        arrays = [*self._average.arrays, *d.parameters, *d.buffers]
        with unchanged_on_error(arrays, self.g_optimizer, self.d_optimizer, *self._progress.parts):
            self._progress.load(state.state, "gan")
            self._average.load_state_dict(state.tensors, "generator.")
            d.load_state_dict(state.tensors, "discriminator.")
            self.g_optimizer.load_state_dict(under_prefix("optimizer.generator.", state), g.parameters)
            self.d_optimizer.load_state_dict(under_prefix("optimizer.discriminator.", state), d.parameters)

    @property
    def _parts(self) -> list[str]:
        """What is in a state beside the weights, by the prefixes of its names."""
        parts = ["optimizer.generator.", "optimizer.discriminator."]
        return parts if self._average.decay is None else [*parts, "generator.training.layers."]

    def samples(self, count: int) -> Array:
        """Images uint8 (count, *shape of an image) from noise that is the same in every epoch."""
        return self.generate(self.latent.draw(generator_for(self.seed, "samples"), count, self.dtype))

    def generate(self, latent: Any) -> Array:
        """Images uint8 (count, *shape of an image) from ``latent`` (count, dim).

        Raises:
            ShapeError: it has another shape.
            DataError: it is not of finite numbers.
        """
        try:
            noise = np.asarray(latent, self.dtype)
        except (TypeError, ValueError) as error:
            raise DataError(f"generate: latent is not an array of numbers: {error}") from error
        if noise.ndim != 2 or noise.shape[1] != self.latent.dim:
            raise ShapeError(
                f"generate: latent {noise.shape}, but it must be (count, {self.latent.dim})",
                operation="generate",
                shapes=(noise.shape,),
            )
        if not np.isfinite(noise).all():
            raise DataError(f"generate: latent {noise.shape} holds values that are not finite")
        with self._average.in_use():
            return self.train.to_bytes(self.generator(noise))


def _arrays(*tensors: Any) -> list[Array]:
    return [np.asarray(tensor) for tensor in tensors]


def _mean_probability(logits: Array) -> float:
    return float(np.mean(ops.sigmoid(np.asarray(logits))))


class _Means:
    """Means of an epoch, each weighed by batch size."""

    def __init__(self) -> None:
        self._totals: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, value: float, count: int) -> None:
        self._totals[name] = self._totals.get(name, 0.0) + value * count
        self._counts[name] = self._counts.get(name, 0) + count

    def result(self) -> dict[str, float]:
        return {name: total / self._counts[name] for name, total in self._totals.items()}
