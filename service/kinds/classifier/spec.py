"""The spec of a classifier."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from service.kinds.supervised.spec import SupervisedSpec
from service.schema.base import MAX_CUTOUT, MAX_SHIFT, Fraction, StrictModel
from service.schema.layers import Layers
from service.schema.specs import Reduction
from service.states import Kind


class LossName(StrEnum):
    """The losses of a classifier."""

    SQUARED_ERROR = "squared_error"
    BINARY_CROSS_ENTROPY = "binary_cross_entropy"
    SOFTMAX_CROSS_ENTROPY = "softmax_cross_entropy"


class ClassWeights(StrEnum):
    """How the classes are weighted in the loss."""

    BALANCED = "balanced"


class ClassifierLoss(StrictModel):
    """The function that a classifier minimizes."""

    name: Annotated[LossName, Field(title="Function")]
    """Use softmax_cross_entropy unless you compare losses. It needs softmax in the last layer; binary_cross_entropy
    needs sigmoid."""
    reduction: Reduction = Reduction.MEAN
    """Whether the gradient is that of the mean or of the sum of the losses of a batch. With sum, the learning rate
    must be lower by about the batch size."""
    label_smoothing: Fraction = 0.0
    """Fraction of the target that is spread evenly over all classes (binary_cross_entropy: over 0 and 1). Usually 0 to
    0.1. It keeps the network from being overconfident."""
    class_weights: Annotated[ClassWeights | None, Field(title="Class weights")] = None
    """With balanced, each class has the same weight in the loss, however rare it is in the training data: rare classes
    get better recall, at the cost of some accuracy. Only with softmax_cross_entropy."""


class Augmentation(StrictModel):
    """Random changes to the training images, new in every epoch."""

    max_shift: Annotated[int, Field(ge=0, le=MAX_SHIFT, title="Maximum shift in pixels")] = 0
    """Shift each image by up to this many pixels in each direction. 1 or 2 raises accuracy on digits; 0 turns it
    off."""
    flip: Annotated[bool, Field(title="Mirror images")] = False
    """Mirror a random half of the images, left to right. For photos, but not for digits or letters, whose meaning it
    changes."""
    cutout: Annotated[int, Field(ge=0, le=MAX_CUTOUT, title="Cutout in pixels")] = 0
    """Erase a square with sides of this many pixels at a random place in each image. Usually a quarter to a half of the
    image's side, with many epochs; it keeps a network from relying on one detail. 0 turns it off."""


class ClassifierSpec(SupervisedSpec):
    """Train a network that classifies images or rows of a table."""

    kind: Literal[Kind.CLASSIFIER]
    layers: Layers
    """The network, from input to output. The last layer has one unit for each class."""
    loss: ClassifierLoss
    """The function to minimize."""
    augmentation: Augmentation = Augmentation()
    """Random changes to the training images."""
