"""The spec of a generative adversarial network."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from service.kinds.gan import GAN
from service.schema.base import (
    MAX_CRITIC_STEPS,
    MAX_EPOCHS,
    MAX_LATENT,
    MAX_PACK,
    MAX_PENALTY,
    MAX_SCORED_SAMPLES,
    StrictModel,
)
from service.schema.layers import Layers
from service.schema.optimizers import Optimizer, Schedule
from service.schema.specs import AverageDecay, BaseSpec, Reduction, TrainedNetwork, limited_to
from service.states import FindingCode, Kind


class GanLossName(StrEnum):
    """The losses of a GAN."""

    BINARY_CROSS_ENTROPY = "binary_cross_entropy"
    LEAST_SQUARES = "least_squares"
    HINGE = "hinge"
    WASSERSTEIN = "wasserstein"


class Distribution(StrEnum):
    """Distribution of a GAN's latent noise: uniform in [-1, 1], or standard normal."""

    UNIFORM = "uniform"
    NORMAL = "normal"


class GanLoss(StrictModel):
    """The function that both networks of a GAN are trained with."""

    name: Annotated[GanLossName, Field(title="Function")]
    """binary_cross_entropy needs a discriminator that ends with sigmoid; the others need one that ends with linear.
    wasserstein also needs gradient_penalty or spectral_norm. hinge is often used with spectral_norm."""
    reduction: Reduction = Reduction.MEAN
    """Whether the gradient is that of the mean or of the sum of the losses of a batch. With sum, the learning rate
    must be lower by about the batch size."""


class GanHealth(StrictModel):
    """How to react to problems that the metrics show, and how often samples are scored."""

    stop_on: Annotated[list[FindingCode], Field(max_length=10), limited_to(*GAN.findings)] = []
    """Fail the job as soon as one of these findings appears, instead of only reporting it. The last checkpoint is
    kept."""
    every_epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS, title="Every n epochs")] = 5
    """Score samples with the reference classifier after every n epochs, and after the last one. Only datasets with a
    reference classifier (mnist and mnist-10k) have scores."""
    samples: Annotated[int, Field(ge=100, le=MAX_SCORED_SAMPLES, title="Samples to score")] = 1000
    """Number of samples to score. More give a more precise Fréchet distance and take longer."""


class Latent(StrictModel):
    """The noise that a generator turns into images."""

    dim: Annotated[int, Field(ge=1, le=MAX_LATENT)]
    """Number of random numbers for each image. Usually 32 to 128."""
    distribution: Distribution = Distribution.UNIFORM
    """Distribution of the random numbers: uniform in [-1, 1], or standard normal."""


class Generator(StrictModel):
    """The network that turns noise into images."""

    layers: Layers
    """The network, from noise to image. The last layer has one output for each pixel."""
    optimizer: Optimizer | None = None
    """An optimizer of its own, instead of the one under Training."""
    schedule: Schedule | None = None
    """A schedule of its own, instead of the one under Training."""
    average_decay: Annotated[AverageDecay, Field(title="Weight averaging (decay)")] = None
    """Make samples with a moving average of the weights over about 1 / (1 - decay) steps. Usually 0.99 to 0.9999, or
    none. It makes GAN samples much steadier."""


class Discriminator(StrictModel):
    """The network that distinguishes real images from generated ones."""

    layers: Layers
    """The network, from image to one output: the probability that the image is real."""
    optimizer: Optimizer | None = None
    """An optimizer of its own, instead of the one under Training."""
    schedule: Schedule | None = None
    """A schedule of its own, instead of the one under Training."""
    skip_every: Annotated[Annotated[int, Field(ge=2, le=1000)] | None, Field(title="Skip every n-th update")] = None
    """Skip the discriminator's update in every n-th step. Usually none; use it if the discriminator wins."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """The discriminator's target for real images is 1 minus this. Usually 0 to 0.2. It keeps the discriminator from
    being overconfident. hinge and wasserstein have no target."""
    critic_steps: Annotated[int, Field(ge=1, le=MAX_CRITIC_STEPS)] = 1
    """Number of discriminator updates for each generator update. Usually 5 with wasserstein, otherwise 1."""
    gradient_penalty: Annotated[float, Field(ge=0, le=MAX_PENALTY)] = 0.0
    """Weight of a penalty that keeps the slope of the discriminator near 1 between real and generated images. Usually
    10, with wasserstein; 0 means no penalty. Steps with a penalty take 1.5 to 2 times as long."""
    r1: Annotated[float, Field(ge=0, le=MAX_PENALTY, title="R1 penalty")] = 0.0
    """Weight of a penalty on the slope of the discriminator at real images. Usually 0.1 to 10; 0 means no penalty. It
    stabilizes a training whose losses oscillate."""
    spectral_norm: bool = False
    """Divide the weights of each layer by their largest singular value, which bounds the slope of the discriminator at
    little cost."""
    pack: Annotated[int, Field(ge=1, le=MAX_PACK, title="Images per discriminator input")] = 1
    """Number of images that the discriminator judges together, so that it can detect when generated images are too
    similar. Usually 1 to 4."""


class GanSpec(BaseSpec):
    """Train a generator and a discriminator against each other."""

    kind: Literal[Kind.GAN]
    latent: Latent
    """The noise that the generator starts from."""
    generator: Generator
    """The network that turns noise into images, and how it is trained."""
    discriminator: Discriminator
    """The network that distinguishes real images from generated ones, and how it is trained."""
    loss: GanLoss
    """The function that both networks are trained with."""
    conditional: bool = False
    """Tell both networks the class of each image, so that images of a chosen class can be generated."""
    health: GanHealth = GanHealth()
    """How to react to problems that the metrics show, and how often samples are scored."""

    @property
    def trained_networks(self) -> Sequence[TrainedNetwork]:
        """The generator, whose weights may be averaged, and the discriminator."""
        networks = ("generator", self.generator), ("discriminator", self.discriminator)
        return [
            TrainedNetwork(
                name=name,
                letter=f"{name[0]}_",
                layers=network.layers,
                optimizer=network.optimizer or self.optimizer,
                schedule=network.schedule or self.schedule,
                has_own_optimizer=network.optimizer is not None,
                average_decay=getattr(network, "average_decay", None),
            )
            for name, network in networks
        ]

    @property
    def stop_on(self) -> Sequence[FindingCode]:
        """The findings that fail the job."""
        return self.health.stop_on

    @property
    def takes_class(self) -> bool:
        """Whether its networks also take the class of an example."""
        return self.conditional

    @property
    def weight_settings(self) -> dict[str, Any]:
        """What weights depend on besides layers and precision, by pointer."""
        return {
            "latent/dim": self.latent.dim,
            "conditional": self.conditional,
            "discriminator/pack": self.discriminator.pack,
            "discriminator/spectral_norm": self.discriminator.spectral_norm,
        }

    @property
    def scored_every_epochs(self) -> int:
        """After how many epochs samples are scored."""
        return self.health.every_epochs

    @property
    def absent_metrics(self) -> frozenset[str]:
        """That of the penalties, if there is none."""
        has_penalty = self.discriminator.gradient_penalty or self.discriminator.r1
        return frozenset() if has_penalty else frozenset({"d_penalty"})
