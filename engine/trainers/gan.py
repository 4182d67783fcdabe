"""Training a generative adversarial network: one step, the diagnostics after an epoch, and generated images.

The loop around them is :meth:`Trainer.run`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack

import numpy as np

from engine.autograd.graph import Array
from engine.data import ImageData, generator_for, one_hot
from engine.errors import DataError, SettingError, ShapeError
from engine.evaluation.diagnostics import (
    PROBE_IMAGES,
    activation_metrics,
    activations,
    probe,
    sample_diversity,
)
from engine.nn.activations import by_name
from engine.nn.containers import Sequential
from engine.nn.losses import Reduction, per_image
from engine.optim.optimizer import Optimizer
from engine.optim.schedules import Schedule
from engine.replay import Replay
from engine.trainers.gan_inputs import DiscriminatorInputs, Latent, as_labels, with_classes
from engine.trainers.gan_losses import AdversarialLosses, GanLoss
from engine.trainers.gan_steps import GanSteps, Penalties
from engine.trainers.reports import EpochDone
from engine.trainers.trainer import Epoch, RunSettings, Trained, Trainer

__all__ = ["GanTrainer"]

_GENERATOR, _DISCRIMINATOR = 0, 1
"""The numbers of the networks."""


class GanTrainer(Trainer):
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
        settings: see :class:`Trainer`. ``accumulate`` batches together are one step; samples use the averaged weights
            of the generator.

    Raises:
        ShapeError: the networks, the latent space and the images do not fit.
        SettingError: the discriminator's last activation does not match the loss, a setting is out of range, or two
            settings exclude each other.

    The metrics are means over the epoch's images. ``d_loss``, ``d_real`` and ``d_penalty`` are means over the steps
    that update the discriminator, because the others do not use real images.
    """

    kind = "gan"
    input_draws = "latent"
    train: ImageData

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
        reduction: Reduction = "mean",
        loss: GanLoss | str = GanLoss.BINARY_CROSS_ENTROPY,
        skip_every: int | None = None,
        critic_steps: int = 1,
        label_smoothing: float = 0.0,
        gradient_penalty: float = 0.0,
        r1: float = 0.0,
        pack: int = 1,
        conditional: bool = False,
        **settings: Unpack[RunSettings],
    ) -> None:
        if conditional and train.labels is None:
            raise SettingError("conditional: the images have no labels", setting="conditional")
        self.classes = train.classes if conditional else 0
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
        self._losses = AdversarialLosses(by_name(GanLoss, loss, "loss"), reduction, label_smoothing)
        self._losses.check_activation(discriminator.activation)
        penalties = Penalties(gradient_penalty, r1)
        self._steps = GanSteps(generator, discriminator, self._losses, self._inputs, penalties)
        self.generator = generator
        self.discriminator = discriminator
        self.trained = [
            Trained("generator.", generator, g_optimizer, g_schedule),
            Trained("discriminator.", discriminator, d_optimizer, d_schedule),
        ]
        self.latent = latent
        self.skip_every = skip_every
        self.critic_steps = critic_steps
        super().__init__(train, reduction, **settings)

    def _whole_batch(self, indices: Array) -> Array:
        return self._inputs.whole_packs(indices)

    def _train_batch(self, replay: Replay, batch: Array, buffer: Array, step: int, epoch: Epoch) -> None:
        noise = self.latent.draw(epoch.inputs, len(batch), self.dtype)
        if self.classes:
            noise = with_classes(noise, epoch.inputs.integers(0, self.classes, len(batch)), self.classes)
        updated = self._updated_networks(step)
        if updated == [_GENERATOR]:
            play = partial(replay, self._steps.generator_step, noise)
        else:
            inputs = [self.train.inputs(batch, self.dtype, out=buffer), *self._one_hot_classes(batch)]
            step_function = self._steps.both_steps if _GENERATOR in updated else self._steps.discriminator_step
            play = partial(replay, step_function, noise, *inputs)
        rows = len(batch) // self._inputs.pack

        def take_step() -> None:
            results = list(play(rng=epoch.dropout))
            self._update(self._record(updated, results, rows, step, epoch), rows, step, epoch)

        epoch.arithmetic.run(take_step)

    def _updated_networks(self, step: int) -> list[int]:
        """Which networks a step updates, the generator first."""
        update = self._accumulation.update_of(step, self._steps_per_epoch)
        if self.skip_every is not None and update % self.skip_every == 0:
            return [_GENERATOR]
        return [_GENERATOR, _DISCRIMINATOR] if (update + 1) % self.critic_steps == 0 else [_DISCRIMINATOR]

    def _one_hot_classes(self, batch: Array) -> list[Array]:
        """The classes of real images in the form that a conditional discriminator receives."""
        if not self.classes or self.train.labels is None:
            return []
        return [one_hot(self.train.labels[batch], self.classes, self.dtype)]

    def _record(
        self, updated: Sequence[int], results: list[Array], rows: int, step: int, epoch: Epoch
    ) -> dict[int, list[Array]]:
        """Record the losses among the results of a step; returns the gradients of the networks that it updates."""
        gradients = {}
        if _GENERATOR not in updated:
            epoch.add("d_fake", self._losses.probability(results.pop(0)) * rows, rows)
        for number in updated:
            loss_name, probability_name = (("g_loss", "d_fake"), ("d_loss", "d_real"))[number]
            self._record_loss(loss_name, results.pop(0), rows, step, epoch)
            epoch.add(probability_name, self._losses.probability(results.pop(0)) * rows, rows)
            if number == _DISCRIMINATOR and self._steps.penalties:
                self._record_loss("d_penalty", results.pop(0), rows, step, epoch)
            gradients[number] = [results.pop(0) for _ in epoch.parameters[number]]
        return gradients

    def _record_loss(self, name: str, loss: Array, rows: int, step: int, epoch: Epoch) -> None:
        value = per_image(loss, self._losses.reduction, rows)
        self._check_finite(name, value, step)
        epoch.add(name, value * rows, rows)

    def _evaluate_epoch(self, epoch: Epoch) -> EpochDone:
        noise = self.draw_noise(generator_for(self.seed, "probe"), PROBE_IMAGES)
        probed = probe(self.train)
        reals = self.train.inputs(probed, self.dtype)
        generated = activations(self.generator, noise)
        real_classes = self._one_hot_classes(probed)
        noise_classes = [noise[:, -self.classes :]] if real_classes else []
        batches = [self._whole_packs(reals, *real_classes), self._whole_packs(generated[-1], *noise_classes)]
        evaluated = activations(self.discriminator, np.concatenate(batches))
        return self._finish_epoch(
            epoch.means()
            | {"learning_rate": epoch.rates[0]}
            | epoch.norms[0].metrics("g_", "generator.")
            | epoch.norms[1].metrics("d_", "discriminator.")
            | activation_metrics(self.generator, generated, "g_", "generator.")
            | activation_metrics(self.discriminator, evaluated, "d_", "discriminator.")
            | {"sample_diversity": sample_diversity(generated[-1], reals)}
        )

    def _whole_packs(self, images: Array, *classes: Array) -> Array:
        chosen = self._inputs.whole_packs(np.arange(len(images)))
        return np.asarray(self._inputs(images[chosen], *(rows[chosen] for rows in classes)))

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
            raise ShapeError.of("generate", f"latent {noise.shape}, but it must be (count, {self.latent.dim})", noise)
        if not np.isfinite(noise).all():
            raise DataError(f"generate: latent {noise.shape} holds values that are not finite")
        with self._average.in_use():
            return self.train.to_bytes(self.generator(noise))
