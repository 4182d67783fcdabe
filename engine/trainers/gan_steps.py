"""The steps of a GAN: losses and gradients, as functions of arrays that a replay can trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine import ops
from engine.autograd.graph import Array
from engine.autograd.tape import GradientTape
from engine.autograd.tensor import Tensor, untracked
from engine.errors import SettingError
from engine.nn.containers import Sequential
from engine.nn.normalization import BatchNorm
from engine.trainers.gan_inputs import DiscriminatorInputs
from engine.trainers.gan_losses import AdversarialLosses


@dataclass(frozen=True, slots=True)
class Penalties:
    """Penalties that limit the slope of a discriminator.

    Attributes:
        gradient_penalty: weight of ``(|slope| - 1)**2`` at random points between real and generated images (Gulrajani
            et al. 2017, Algorithm 1). 0: no penalty.
        r1: weight of ``|slope|**2 / 2`` at real images (Mescheder et al. 2018, equation 9). 0: no penalty.
    """

    gradient_penalty: float = 0.0
    r1: float = 0.0

    def __post_init__(self) -> None:
        for name in ("gradient_penalty", "r1"):
            if not 0 <= getattr(self, name) < np.inf:
                raise SettingError(f"{name} {getattr(self, name)} must not be negative", setting=name)

    def __bool__(self) -> bool:
        return self.gradient_penalty > 0 or self.r1 > 0

    def check(self, discriminator: Sequential) -> None:
        """Raise SettingError if the slope at an image would depend on the other images of the batch."""
        if self and any(isinstance(layer, BatchNorm) for layer in discriminator.all_layers()):
            name = "gradient_penalty" if self.gradient_penalty else "r1"
            raise SettingError(
                f"{name}: a discriminator with BatchNorm has no slope per image; use LayerNorm", setting=name
            )


@dataclass
class GanSteps:
    """The computations of one training step before the updates.

    Each method takes noise (n, inputs of the generator), with one-hot classes at the end for a conditional GAN. Methods
    that involve the discriminator's loss also take real images (n, pixels) and, for a conditional GAN, their classes
    (n, classes).
    """

    generator: Sequential
    discriminator: Sequential
    losses: AdversarialLosses
    inputs: DiscriminatorInputs
    penalties: Penalties

    def __post_init__(self) -> None:
        self.penalties.check(self.discriminator)

    def generator_step(self, noise: Array, *, rng: np.random.Generator | None) -> list[Array]:
        """The generator's loss, the logits of the fakes, and the gradients of the generator."""
        with GradientTape() as tape:
            fakes = self.generator(noise, training=True, rng=rng)
            fake_logits = self._logits(fakes, *self._classes(noise), rng=rng)
            loss = self.losses.generator(fake_logits)
        return _arrays(loss, fake_logits, *tape.gradient(loss, self.generator.parameters))

    def both_steps(self, noise: Array, reals: Array, *classes: Array, rng: np.random.Generator | None) -> list[Array]:
        """The results of :meth:`generator_step`, then those of :meth:`discriminator_step`, from the same fakes."""
        with GradientTape(persistent=True, keeps_graph=False) as tape:
            fakes = self.generator(noise, training=True, rng=rng)
            fake_logits = self._logits(fakes, *self._classes(noise), rng=rng)
            g_loss = self.losses.generator(fake_logits)
            d_outputs, total = self._discriminator_loss(fakes, fake_logits, reals, *classes, rng=rng)
        # Each gradient visits only the records between its loss and its own weights.
        g_gradients = tape.gradient(g_loss, self.generator.parameters)
        d_gradients = tape.gradient(total, self.discriminator.parameters)
        del tape  # so that the results are writeable, as after the only gradient of a tape
        return _arrays(g_loss, fake_logits, *g_gradients, *d_outputs, *d_gradients)

    def discriminator_step(
        self, noise: Array, reals: Array, *classes: Array, rng: np.random.Generator | None
    ) -> list[Array]:
        """The logits of the fakes, then the discriminator's loss, the logits of reals, the penalty if there is one, and
        the gradients of the discriminator."""
        fakes = untracked(self.generator(noise, training=True, rng=rng))
        with GradientTape() as tape:
            fake_logits = self._logits(fakes, *self._classes(noise), rng=rng)
            outputs, total = self._discriminator_loss(fakes, fake_logits, reals, *classes, rng=rng)
        return _arrays(fake_logits, *outputs, *tape.gradient(total, self.discriminator.parameters))

    def _discriminator_loss(
        self, fakes: Any, fake_logits: Any, reals: Array, *classes: Array, rng: np.random.Generator | None
    ) -> tuple[list[Any], Any]:
        """The discriminator's loss, the logits of reals and the penalty, and the target of the gradient."""
        real_logits = self._logits(reals, *classes, rng=rng)
        loss = self.losses.discriminator(real_logits, fake_logits)
        if not self.penalties:
            return [loss, real_logits], loss
        penalty = self._penalty(untracked(fakes), reals, *classes, rng=rng)
        return [loss, real_logits, penalty], ops.add(loss, penalty)

    def _penalty(self, fakes: Array, reals: Array, *classes: Array, rng: np.random.Generator | None) -> Any:
        """The weighted penalties, on the running tape."""
        terms = []
        if self.penalties.gradient_penalty:
            weights = _uniform(rng, len(reals), reals.dtype)
            interpolated = np.add(np.multiply(reals, weights), np.multiply(fakes, np.subtract(1, weights)))
            slopes = self._slopes(interpolated, *classes, rng=rng)
            terms.append(self.losses.penalty(slopes, 1.0, self.penalties.gradient_penalty))
        if self.penalties.r1:
            slopes = self._slopes(reals, *classes, rng=rng)
            terms.append(self.losses.penalty(slopes, 0.0, self.penalties.r1 / 2))
        return terms[0] if len(terms) == 1 else ops.add(*terms)

    def _slopes(self, points: Array, *classes: Array, rng: np.random.Generator | None) -> Any:
        """The gradient of each output of the discriminator with respect to its images, one row per pack."""
        images = Tensor(points, watch=True)
        with GradientTape() as tape:
            logits = self._logits(images, *classes, rng=rng)
        (slopes,) = tape.gradient(logits, [images], create_graph=True)
        rows = len(images) // self.inputs.pack
        return ops.reshape(slopes, shape=(rows, images.size // rows))

    def _classes(self, noise: Array) -> list[Array]:
        return [noise[:, -self.inputs.classes :]] if self.inputs.classes else []

    def _logits(self, images: Any, *classes: Array, rng: np.random.Generator | None) -> Any:
        return self.discriminator.logits(self.inputs(images, *classes), training=True, rng=rng)


def _uniform(rng: np.random.Generator | None, count: int, dtype: Any) -> Array:
    if rng is None:
        raise SettingError("gradient_penalty needs a random generator", setting="rng")
    return rng.random((count, 1), dtype)


def _arrays(*tensors: Any) -> list[Array]:
    return [np.asarray(tensor) for tensor in tensors]
