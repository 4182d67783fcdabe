"""Optimizers and learning rate schedules."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from service.schema.base import MAX_EPOCHS, Epsilon, Fraction, Rate, StrictModel, applies_when

Decay = Annotated[float, Field(ge=0, le=10)]
ClipNorm = Annotated[
    Annotated[float, Field(gt=0, le=1e9)] | None,
    Field(
        title="Gradient clipping (norm)",
        description="Scale gradients down when their norm over the whole network exceeds this. Usually 1 to 10, or "
        "none. Use it against sudden jumps of the loss.",
    ),
]
_DECAYS: Final = applies_when(weight_decay={"exclusiveMinimum": 0})


class Sgd(StrictModel):
    """Stochastic gradient descent, optionally with momentum."""

    name: Literal["sgd"]
    learning_rate: Rate
    """Step size of the optimizer. For SGD usually 0.01 to 0.5. Lower it when the loss jumps or diverges; raise it when
    the loss falls slowly."""
    momentum: Fraction = 0.0
    """Fraction of the previous step that is added to the next one. Usually 0.9; 0 is plain gradient descent."""
    nesterov: Annotated[bool, applies_when(momentum={"exclusiveMinimum": 0})] = False
    """Use Nesterov's momentum, which takes the gradient after the momentum step. It often converges a little
    faster."""
    weight_decay: Decay = 0.0
    """L2 regularization: each weight times this factor is added to its gradient. Usually 0 to 0.001. Increase it
    against overfitting."""
    decay_biases: Annotated[bool, _DECAYS] = True
    """Apply weight decay also to biases and to the scale and shift of batch_norm."""
    clip_norm: ClipNorm = None


class Adam(StrictModel):
    """Adam (Kingma and Ba 2015): a step size for each weight. Needs less tuning than SGD."""

    name: Literal["adam"]
    learning_rate: Rate = 0.001
    """Step size of the optimizer. For Adam usually 0.0001 to 0.003. Lower it when the loss jumps or diverges; raise it
    when the loss falls slowly."""
    beta1: Fraction = 0.9
    """Decay rate of the mean of the gradients. Usually 0.9; 0.5 for GANs."""
    beta2: Fraction = 0.999
    """Decay rate of the mean of the squared gradients. Usually 0.99 to 0.999."""
    epsilon: Epsilon = 1e-8
    """Added to the denominator to avoid division by zero. There is rarely a reason to change it."""
    clip_norm: ClipNorm = None


class AdamW(StrictModel):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), which generalizes better."""

    name: Literal["adamw"]
    learning_rate: Rate = 0.001
    """Step size of the optimizer. For AdamW usually 0.0005 to 0.005. Lower it when the loss jumps or diverges; raise it
    when the loss falls slowly."""
    beta1: Fraction = 0.9
    """Decay rate of the mean of the gradients. Usually 0.9; 0.5 for GANs."""
    beta2: Fraction = 0.999
    """Decay rate of the mean of the squared gradients. Usually 0.99 to 0.999."""
    epsilon: Epsilon = 1e-8
    """Added to the denominator to avoid division by zero. There is rarely a reason to change it."""
    weight_decay: Decay = 0.01
    """Each step reduces each weight by this factor times the scheduled learning rate. Usually 0.01 to 0.1. Increase it
    against overfitting."""
    decay_biases: Annotated[bool, _DECAYS] = True
    """Apply weight decay also to biases and to the scale and shift of batch_norm."""
    clip_norm: ClipNorm = None


Optimizer = Annotated[Sgd | Adam | AdamW, Field(discriminator="name")]


class Constant(StrictModel):
    """The learning rate stays the same."""

    name: Literal["constant"]


class Step(StrictModel):
    """The learning rate drops at given epochs."""

    name: Literal["step"]
    at_epochs: Annotated[
        list[Annotated[int, Field(ge=1, le=MAX_EPOCHS)]], Field(min_length=1, max_length=100, title="Drop after epochs")
    ]
    """Numbers of completed epochs after which the learning rate drops, for example 30, 60, 90."""
    factor: Annotated[float, Field(gt=0, le=1)]
    """The learning rate is multiplied by this at each drop. Usually 0.1 to 0.7."""


class OneCycle(StrictModel):
    """The learning rate rises along a cosine, then falls to almost zero. Allows high rates and short trainings."""

    name: Literal["one_cycle"]
    warmup_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Fraction of the run in which the learning rate rises. Usually 0.1 to 0.4."""
    start_factor: Annotated[float, Field(gt=0, le=1)] = 0.04
    """The first learning rate, as a fraction of the highest one."""
    end_factor: Annotated[float, Field(gt=0, le=1)] = 0.000004
    """The last learning rate, as a fraction of the highest one."""


class Cosine(StrictModel):
    """The learning rate falls along a cosine, after an optional linear warmup."""

    name: Literal["cosine"]
    warmup_fraction: Fraction = 0.0
    """Fraction of the run in which the learning rate rises linearly. 0 means no warmup; usually up to 0.1."""
    start_factor: Annotated[float, Field(gt=0, le=1), applies_when(warmup_fraction={"exclusiveMinimum": 0})] = 0.04
    """The learning rate at the start of the warmup, as a fraction of the highest one."""
    end_factor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The last learning rate, as a fraction of the highest one."""


Schedule = Annotated[Constant | Step | OneCycle | Cosine, Field(discriminator="name")]
