"""Training a generative adversarial network: read :meth:`GanTrainer.run` from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from engine import memory
from engine.autograd.graph import Array
from engine.checkpoint import State
from engine.data import ImageData, batch_count, batches, generator_for, one_hot
from engine.errors import DataError, SettingError, ShapeError
from engine.evaluation.diagnostics import (
    PROBE_IMAGES,
    GradientNorms,
    activation_metrics,
    activations,
    probe,
    sample_diversity,
)
from engine.memory import training_arithmetic
from engine.nn.containers import Sequential
from engine.nn.losses import Reduction, mean_gradient_scale, per_image
from engine.optim.accumulation import Accumulation
from engine.optim.averaging import AveragedWeights
from engine.optim.optimizer import Optimizer
from engine.optim.schedules import Schedule
from engine.replay import Replay
from engine.trainers.early_stopping import EarlyStopping, StoppedEarly
from engine.trainers.gan_inputs import DiscriminatorInputs, Latent, as_labels, classes_of, with_classes
from engine.trainers.gan_losses import AdversarialLosses, GanLoss, as_loss
from engine.trainers.gan_steps import GanSteps, Penalties
from engine.trainers.progress import (
    Means,
    Progress,
    check_dtype,
    check_parts,
    present_parts,
    unchanged_on_error,
    under_prefix,
    with_prefix,
)
from engine.trainers.reports import BatchDone, EpochDone

_GENERATOR_ONLY, _DISCRIMINATOR_ONLY, _BOTH = "generator", "discriminator", "both"
"""Which networks a step updates."""


class GanTrainer:
    """Trains a generator against a discriminator (Goodfellow et al. 2014).

    Both losses of a step come from one pass of the discriminator over the generated images ("fakes"). Both gradients
    are those at the weights before the step; the generator is updated first.

    Args:
        generator: (batch, latent.dim) to (batch, pixels), in the range of ``train.scale``; for a conditional GAN, from
            (batch, latent.dim + classes).
        discriminator: (batch, pixels) to (batch, 1), how real an image looks; for packs, or images with classes, from
            the inputs that :class:`~engine.trainers.gan_inputs.DiscriminatorInputs` builds. Its last activation must
            match the loss.
        g_schedule, d_schedule: their factors multiply the learning rates of the two optimizers in each step.
        loss: the loss of both networks (:class:`~engine.trainers.gan_losses.GanLoss`).
        reduction: with ``sum``, gradients are those of the sum over the batch; reported losses are always means.
        skip_every: do not update the discriminator in steps i with ``i % skip_every == 0``, where i counts from 0 over
            the whole run. None: always update it.
        critic_steps: n: update the generator only in every n-th step.
        label_smoothing: s; the target for real images is 1 - s (one-sided, Salimans et al. 2016, section 3.4).
        gradient_penalty, r1: weights of the penalties (:class:`~engine.trainers.gan_steps.Penalties`).
        pack: number of images that the discriminator judges together.
        conditional: both networks receive the class of each image.
        accumulate: number of batches per update, which together are one step. The last update of an epoch uses the
            remaining batches.
        seed: with the epoch, the source of all random numbers.
        average_decay: generate samples with averaged weights of the generator (:mod:`engine.optim.averaging`); None:
            with the last weights.
        early_stopping: ends the run when a metric stops improving; None: never.
        replay: trace a step once and replay it (:mod:`engine.replay`), with the same bits; False always uses the tape.

    Raises:
        ShapeError: the networks, the latent space and the images do not fit.
        SettingError: the discriminator's last activation does not match the loss, a setting is out of range, or two
            settings exclude each other.
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
        loss: GanLoss | str = GanLoss.BINARY_CROSS_ENTROPY,
        skip_every: int | None = None,
        critic_steps: int = 1,
        label_smoothing: float = 0.0,
        gradient_penalty: float = 0.0,
        r1: float = 0.0,
        pack: int = 1,
        conditional: bool = False,
        accumulate: int = 1,
        average_decay: float | None = None,
        early_stopping: EarlyStopping | None = None,
        dtype: DTypeLike = np.float32,
        replay: bool = True,
    ) -> None:
        self.classes = classes_of(train) if conditional else 0
        sizes = (generator.inputs, generator.units, discriminator.units)
        if sizes != (latent.dim + self.classes, train.features, 1):
            raise ShapeError(
                f"generator {sizes[0]} -> {sizes[1]} and discriminator {discriminator.inputs} -> {sizes[2]} do not fit "
                f"{latent.dim + self.classes} latent numbers, images of {train.features} pixels and one probability"
            )
        self._inputs = DiscriminatorInputs(discriminator.input_shape, train.features, pack, self.classes)
        if skip_every is not None and skip_every < 2:
            raise SettingError(
                f"skip_every {skip_every} would never update the discriminator; it must be at least 2",
                setting="skip_every",
            )
        if critic_steps < 1 or (critic_steps > 1 and skip_every is not None):
            raise SettingError(
                f"critic_steps {critic_steps} must be positive, and 1 where skip_every is given", setting="critic_steps"
            )
        self._losses = AdversarialLosses(as_loss(loss), reduction, label_smoothing)
        self._losses.check_activation(discriminator.activation)
        penalties = Penalties(gradient_penalty, r1)
        self._steps = GanSteps(generator, discriminator, self._losses, self._inputs, penalties)
        self._accumulation = Accumulation(accumulate, reduction)
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
        self.critic_steps = critic_steps
        self.dtype = np.dtype(dtype)
        check_dtype(self.dtype, generator, discriminator)
        self.replay = replay
        self._average = AveragedWeights(generator, average_decay)
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

        The metrics are means over the epoch's images. ``d_loss``, ``d_real`` and ``d_penalty`` are means over the steps
        that update the discriminator, because the others do not use real images.

        Raises:
            DivergedError: a loss, or after an epoch a weight, is not finite.
            EngineError: an earlier loop was left in the middle of an epoch, and no state was loaded since.
        """
        progress = self._progress
        progress.require_whole_epoch("run")
        largest = len(self._inputs.whole_packs(np.arange(min(self.batch_size, len(self.train)))))
        reals = memory.empty((largest, self.train.features), self.dtype)
        replay = Replay(
            [reals, *self.generator.parameters, *self.discriminator.parameters],
            changing=[*self.generator.buffers, *self.discriminator.buffers],
            enabled=self.replay,
        )
        arrays = self.generator.named_arrays(), self.discriminator.named_arrays()
        while not progress.over:
            progress.underway = True
            self._accumulation.clear()
            replay.verify_again()
            step, means, rate = progress.step, Means(), 0.0
            norms = [
                GradientNorms(network, progress.steps_per_epoch) for network in (self.generator, self.discriminator)
            ]
            latent = generator_for(self.seed, "latent", progress.epoch)
            dropout = generator_for(self.seed, "dropout", progress.epoch)
            for batch in batches(
                len(self.train), self.batch_size, seed=self.seed, epoch=progress.epoch, shuffle=self.shuffle
            ):
                batch = self._inputs.whole_packs(batch)
                noise = self.latent.draw(latent, len(batch), self.dtype)
                if self.classes:
                    noise = with_classes(noise, latent.integers(0, self.classes, len(batch)), self.classes)
                position = (step, progress.steps_per_epoch, progress.steps)
                rate = self.g_optimizer.learning_rate * self.g_schedule(*position)
                d_rate = self.d_optimizer.learning_rate * self.d_schedule(*position)
                with training_arithmetic():
                    updated = self._updated_networks(step)
                    if updated == _GENERATOR_ONLY:
                        losses = replay(self._steps.generator_step, noise, rng=dropout)
                    else:
                        buffer = reals if len(batch) == len(reals) else reals[: len(batch)]
                        inputs = [self.train.inputs(batch, self.dtype, out=buffer), *self._one_hot_classes(batch)]
                        both = updated == _BOTH
                        step_function = self._steps.both_steps if both else self._steps.discriminator_step
                        losses = replay(step_function, noise, *inputs, rng=dropout)
                    self._update(updated, losses, step, means, norms, rate, d_rate)
                del losses  # free the gradients before the next step
                step += 1
                yield BatchDone(progress.epoch + 1, step, progress.steps)

            progress.check_weights(self.generator, arrays[0], step, "generator.")
            progress.check_weights(self.discriminator, arrays[1], step, "discriminator.")
            yield progress.finish_epoch(means.result() | {"learning_rate": rate} | self._diagnostics(norms))

    def _updated_networks(self, step: int) -> str:
        """Which networks a step updates."""
        update = self._accumulation.update_of(step, self._progress.steps_per_epoch)
        if self.skip_every is not None and update % self.skip_every == 0:
            return _GENERATOR_ONLY
        return _BOTH if (update + 1) % self.critic_steps == 0 else _DISCRIMINATOR_ONLY

    def _one_hot_classes(self, batch: Array) -> list[Array]:
        """The classes of real images in the form that a conditional discriminator receives."""
        if not self.classes or self.train.labels is None:
            return []
        return [one_hot(self.train.labels[batch], self.classes, self.dtype)]

    def _update(
        self,
        updated: str,
        losses: Sequence[Array],
        step: int,
        means: Means,
        norms: Sequence[GradientNorms],
        g_rate: float,
        d_rate: float,
    ) -> None:
        """Record the losses of a step, add up its gradients, and update the networks, the generator first."""
        remaining, rows = list(losses), len(losses[0 if updated == _DISCRIMINATOR_ONLY else 1])
        updates = []
        if updated == _DISCRIMINATOR_ONLY:
            means.add("d_fake", self._losses.probability(remaining.pop(0)), rows)
        else:
            updates.append((self.generator, self.g_optimizer, g_rate, "g_loss", "d_fake", norms[0]))
        if updated != _GENERATOR_ONLY:
            updates.append((self.discriminator, self.d_optimizer, d_rate, "d_loss", "d_real", norms[1]))
        for network, _, _, loss_name, probability_name, gradient_norms in updates:
            loss, logits = remaining.pop(0), remaining.pop(0)
            self._record_loss(means, loss_name, loss, rows, step)
            means.add(probability_name, self._losses.probability(logits), rows)
            if network is self.discriminator and self._steps.penalties:
                self._record_loss(means, "d_penalty", remaining.pop(0), rows, step)
            count = len(network.parameters)
            gradients, remaining = remaining[:count], remaining[count:]
            if gradient_norms.is_due(step - self._progress.step):
                gradient_norms.add(gradients, mean_gradient_scale(self._losses.reduction, rows))
            self._accumulation.add(network, gradients, rows)
        steps_per_epoch = self._progress.steps_per_epoch
        if self._accumulation.completes(step, steps_per_epoch):
            for network, optimizer, rate, *_ in updates:
                optimizer.apply(network.parameters, self._accumulation.take(network), rate)
            if updated != _DISCRIMINATOR_ONLY:
                self._average.update(self._accumulation.update_of(step, steps_per_epoch) // self.critic_steps)

    def _diagnostics(self, norms: Sequence[GradientNorms]) -> dict[str, float]:
        """The diagnostics of the epoch (:mod:`engine.evaluation.diagnostics`)."""
        noise = self.draw_noise(generator_for(self.seed, "probe"), PROBE_IMAGES)
        probed = probe(self.train)
        reals = self.train.inputs(probed, self.dtype)
        generated = activations(self.generator, noise)
        real_classes = self._one_hot_classes(probed)
        noise_classes = [noise[:, -self.classes :]] if real_classes else []
        batches = [self._whole_packs(reals, *real_classes), self._whole_packs(generated[-1], *noise_classes)]
        evaluated = activations(self.discriminator, np.concatenate(batches))
        return (
            norms[0].metrics("g_", "generator.")
            | norms[1].metrics("d_", "discriminator.")
            | activation_metrics(self.generator, generated, "g_", "generator.")
            | activation_metrics(self.discriminator, evaluated, "d_", "discriminator.")
            | {"sample_diversity": sample_diversity(generated[-1], reals)}
        )

    def _whole_packs(self, images: Array, *classes: Array) -> Array:
        chosen = self._inputs.whole_packs(np.arange(len(images)))
        return np.asarray(self._inputs(images[chosen], *(rows[chosen] for rows in classes)))

    def _record_loss(self, means: Means, name: str, loss: Array, rows: int, step: int) -> None:
        value = per_image(loss, self._losses.reduction, rows)
        self._progress.check_finite(name, value, step)
        means.add(name, value, rows)

    def state_dict(self) -> State:
        """Weights, optimizer states and epoch: everything needed to continue with the same bits.

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
        return State(tensors, self._progress.state_dict("gan") | present_parts(tensors, self._parts))

    def load_state_dict(self, state: State) -> None:
        """Load the state of a trainer with the same settings.

        Raises:
            CheckpointError: the state does not fit. The trainer is then unchanged.
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
        """The parts of a state besides the weights, by the prefixes of their names."""
        parts = ["optimizer.generator.", "optimizer.discriminator."]
        return parts if self._average.decay is None else [*parts, "generator.training.layers."]

    def draw_noise(self, rng: np.random.Generator, count: int, labels: Any = None) -> Array:
        """The generator's input for ``count`` images: noise, with classes that alternate or are those of ``labels``."""
        noise = self.latent.draw(rng, count, self.dtype)
        return with_classes(noise, as_labels(labels, count, self.classes), self.classes) if self.classes else noise

    def samples(self, count: int) -> Array:
        """Images uint8 (count, *shape of an image) from noise that is the same in every epoch."""
        return self.generate(self.draw_noise(generator_for(self.seed, "samples"), count))

    def generate(self, latent: Any, labels: Any = None) -> Array:
        """Images uint8 (count, *shape of an image) from ``latent`` (count, dim).

        Args:
            latent: noise; for a conditional GAN, alternatively the result of :meth:`draw_noise`.
            labels: for a conditional GAN, the class of all images, or of each; None alternates between the classes.

        Raises:
            ShapeError: ``latent`` has another shape.
            DataError: ``latent`` has values that are not finite numbers, or labels are not classes.
        """
        try:
            noise = np.asarray(latent, self.dtype)
        except (TypeError, ValueError) as error:
            raise DataError(f"generate: latent is not an array of numbers: {error}") from error
        if self.classes and noise.ndim == 2 and noise.shape[1] == self.latent.dim:
            noise = with_classes(noise, as_labels(labels, len(noise), self.classes), self.classes)
        if noise.ndim != 2 or noise.shape[1] != self.generator.inputs:
            raise ShapeError(
                f"generate: latent {noise.shape}, but it must be (count, {self.latent.dim})",
                operation="generate",
                shapes=(noise.shape,),
            )
        if not np.isfinite(noise).all():
            raise DataError(f"generate: latent {noise.shape} holds values that are not finite")
        with self._average.in_use():
            return self.train.to_bytes(self.generator(noise))
