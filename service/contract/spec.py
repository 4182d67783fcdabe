"""The training spec: every field that a person may send, with its range. A spec is data, never code.

The models describe a spec whose values are all filled in (``resolved``); ``validation.resolve`` makes one of
what a person sent. Field order here is the order in which documents show it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, Tag

from service.contract.states import FindingCode

MAX_LAYERS: Final = 64
MAX_UNITS: Final = 2**18
"""As many as an image of 512 x 512 has pixels; a network's weights have a limit of their own."""
MAX_LATENT: Final = 4096
MAX_FILTERS: Final = 1024
MAX_KERNEL: Final = 31
MAX_SCALE: Final = 16
"""The most that one layer may make an image smaller or larger along a side."""
MAX_OUTPUTS: Final = 2**18
"""The most numbers that one layer may make of one input."""
MAX_PARAMETERS: Final = 20_000_000
MAX_MEMORY_BYTES: Final = 4 * 2**30
"""The most that a training may be reckoned to need at its peak."""
MAX_OPERATIONS: Final = 1e16
"""The most floating-point operations of a whole run: some days of one core."""
MAX_EPOCHS: Final = 10_000
MAX_BATCH: Final = 4096
MAX_SHOWN_PIXELS: Final = 2**21
"""The most pixels of data that one picture of samples shows."""
MAX_SHIFT: Final = 16
MAX_JUDGED: Final = 10_000


class Kind(StrEnum):
    """What is trained."""

    CLASSIFIER = "classifier"
    GAN = "gan"


class DType(StrEnum):
    """The floating point type of the whole training."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


class Activation(StrEnum):
    """What a layer applies to its sums."""

    LINEAR = "linear"
    SIGMOID = "sigmoid"
    TANH = "tanh"
    RELU = "relu"
    LEAKY_RELU = "leaky_relu"
    SOFTMAX = "softmax"


class Padding(StrEnum):
    """What a convolution does at the border: zeros around, such that stride 1 keeps the size, or nothing."""

    SAME = "same"
    VALID = "valid"


class Reduction(StrEnum):
    """How a batch's losses become the number whose gradient is taken."""

    MEAN = "mean"
    SUM = "sum"


class LossName(StrEnum):
    """The losses of a classifier."""

    SQUARED_ERROR = "squared_error"
    BINARY_CROSS_ENTROPY = "binary_cross_entropy"
    SOFTMAX_CROSS_ENTROPY = "softmax_cross_entropy"


class StopMetric(StrEnum):
    """What early stopping may look at: losses are to fall, accuracies to rise."""

    VAL_LOSS = "val_loss"
    VAL_ACCURACY = "val_accuracy"
    TRAIN_LOSS = "train_loss"
    TRAIN_ACCURACY = "train_accuracy"


class Distribution(StrEnum):
    """What a GAN's latent noise is drawn from: uniform in [-1, 1], or standard normal."""

    UNIFORM = "uniform"
    NORMAL = "normal"


class _AddedLater:
    """The mark of a field that specs did not have at first."""


ADDED_LATER: Final = _AddedLater()
"""Where a field with this mark has its default, ``validation.spec_hash`` leaves it out: to a spec from before nothing
has changed. So its default must be what was computed before it came."""


class Part(BaseModel):
    """Base of everything in a spec: unknown fields are faults, numbers are finite, nothing is coerced."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


Rate = Annotated[float, Field(gt=0, le=10)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
PlainText = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
AverageDecay = Fraction | None
Label = Annotated[str, StringConstraints(min_length=1, max_length=50, pattern=r"^[^\x00-\x1f\x7f,]+$")]


class Data(Part):
    """Which data set, and the range that its pixels (0 to 255) are mapped to."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    scale: Annotated[list[Annotated[float, Field(ge=-1000, le=1000)]], Field(min_length=2, max_length=2)]


class Dense(Part):
    """A fully connected layer: activation(x @ weight + bias)."""

    type: Literal["dense"] = "dense"
    units: Annotated[int, Field(ge=1, le=MAX_UNITS)]
    activation: Activation
    negative_slope: Annotated[float, Field(ge=0, le=1)] = 0.2
    """The slope of leaky_relu below zero; other activations have no use for it."""


class Dropout(Part):
    """Sets a share of its inputs to zero while training, and scales the rest up."""

    type: Literal["dropout"]
    rate: Fraction


class Conv2D(Part):
    """A convolution of images (rows, columns, channels): activation(conv(x, weight) + bias)."""

    type: Literal["conv2d"]
    filters: Annotated[int, Field(ge=1, le=MAX_FILTERS)]
    kernel: Annotated[int, Field(ge=1, le=MAX_KERNEL)] = 3
    """Rows and columns of each filter."""
    stride: Annotated[int, Field(ge=1, le=MAX_SCALE)] = 1
    padding: Padding = Padding.SAME
    activation: Activation
    negative_slope: Annotated[float, Field(ge=0, le=1)] = 0.2
    """The slope of leaky_relu below zero; other activations have no use for it."""


class MaxPool2D(Part):
    """The largest of each window of size x size pixels; windows lie side by side and must divide the image."""

    type: Literal["max_pool2d"]
    size: Annotated[int, Field(ge=2, le=MAX_SCALE)] = 2


class Upsample2D(Part):
    """Each pixel size x size times; with conv2d after it, what a generator grows images with."""

    type: Literal["upsample2d"]
    size: Annotated[int, Field(ge=2, le=MAX_SCALE)] = 2


class BatchNorm(Part):
    """Batch normalization over all but the last axis, then an activation; the layer before is best linear."""

    type: Literal["batch_norm"]
    activation: Activation = Activation.LINEAR
    momentum: Fraction = 0.9
    """How much of the running statistics, which inference uses, stays at each step."""
    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-5
    negative_slope: Annotated[float, Field(ge=0, le=1)] = 0.2
    """The slope of leaky_relu below zero; other activations have no use for it."""


class Flatten(Part):
    """Images as rows of numbers: what a dense layer takes."""

    type: Literal["flatten"]


class Reshape(Part):
    """Rows of numbers as images: what a convolution takes."""

    type: Literal["reshape"]
    shape: Annotated[list[Annotated[int, Field(ge=1, le=MAX_UNITS)]], Field(min_length=3, max_length=3)]
    """Rows, columns, channels."""


def _tag(layer: Any) -> str:
    name = layer.get("type", "dense") if isinstance(layer, dict) else getattr(layer, "type", "dense")
    return name if isinstance(name, str) else ""


Layer = Annotated[
    Annotated[Dense, Tag("dense")]
    | Annotated[Dropout, Tag("dropout")]
    | Annotated[Conv2D, Tag("conv2d")]
    | Annotated[MaxPool2D, Tag("max_pool2d")]
    | Annotated[Upsample2D, Tag("upsample2d")]
    | Annotated[BatchNorm, Tag("batch_norm")]
    | Annotated[Flatten, Tag("flatten")]
    | Annotated[Reshape, Tag("reshape")],
    pydantic.Discriminator(_tag),
]
"""A layer by its ``type``; dense where none is given. A network that begins with conv2d, max_pool2d or upsample2d sees
images (rows, columns, 1), any other rows of pixels."""
Layers = Annotated[list[Layer], Field(min_length=1, max_length=MAX_LAYERS)]


class Uniform(Part):
    """Weights and biases uniform in [-scale, scale]."""

    name: Literal["uniform"]
    scale: Annotated[float, Field(gt=0, le=10)]


class Glorot(Part):
    """Uniform in ±sqrt(6 / (inputs + units)); biases zero."""

    name: Literal["glorot"]


class He(Part):
    """Normal with deviation sqrt(2 / inputs); biases zero."""

    name: Literal["he"]


Initializer = Annotated[Uniform | Glorot | He, Field(discriminator="name")]


Decay = Annotated[float, Field(ge=0, le=10)]
ClipNorm = Annotated[float, Field(gt=0, le=1e9)] | None


class Sgd(Part):
    """Stochastic gradient descent, with momentum where it is not zero."""

    name: Literal["sgd"]
    learning_rate: Rate
    momentum: Fraction = 0.0
    nesterov: Annotated[bool, ADDED_LATER] = False
    """Nesterov's momentum, which looks ahead; it needs a momentum."""
    weight_decay: Annotated[Decay, ADDED_LATER] = 0.0
    """This times each weight is added to its gradient (L2, as PyTorch's SGD has it)."""
    decay_biases: Annotated[bool, ADDED_LATER] = True
    """Whether biases and the scale and shift of batch_norm decay too."""
    clip_norm: Annotated[ClipNorm, ADDED_LATER] = None
    """A network's gradients are scaled down where their norm, all together, is above this."""


class Adam(Part):
    """Adam (Kingma and Ba 2015)."""

    name: Literal["adam"]
    learning_rate: Rate = 0.001
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-8
    clip_norm: Annotated[ClipNorm, ADDED_LATER] = None
    """A network's gradients are scaled down where their norm, all together, is above this."""


class AdamW(Part):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    name: Literal["adamw"]
    learning_rate: Rate = 0.001
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-8
    weight_decay: Decay = 0.01
    """Each step takes this times the scheduled learning rate off each weight."""
    decay_biases: bool = True
    """Whether biases and the scale and shift of batch_norm decay too."""
    clip_norm: ClipNorm = None
    """A network's gradients are scaled down where their norm, all together, is above this."""


Optimizer = Annotated[Sgd | Adam | AdamW, Field(discriminator="name")]


class Constant(Part):
    """The learning rate stays as it is."""

    name: Literal["constant"]


class Step(Part):
    """The learning rate is multiplied by ``factor`` at each of these counts of finished epochs."""

    name: Literal["step"]
    at_epochs: Annotated[list[Annotated[int, Field(ge=1, le=MAX_EPOCHS)]], Field(min_length=1, max_length=100)]
    factor: Annotated[float, Field(gt=0, le=1)]


class OneCycle(Part):
    """Up to the learning rate over the first part of the run, then down to almost nothing, both by cosine."""

    name: Literal["one_cycle"]
    warmup_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    start_factor: Annotated[float, Field(gt=0, le=1)] = 0.04
    end_factor: Annotated[float, Field(gt=0, le=1)] = 0.000004


class Cosine(Part):
    """Down to ``end_factor`` by cosine, after a line from ``start_factor`` up over the first part of the run."""

    name: Literal["cosine"]
    warmup_fraction: Fraction = 0.0
    start_factor: Annotated[float, Field(gt=0, le=1)] = 0.04
    end_factor: Annotated[float, Field(ge=0, le=1)] = 0.0


Schedule = Annotated[Constant | Step | OneCycle | Cosine, Field(discriminator="name")]


class ClassifierLoss(Part):
    """What a classifier minimises."""

    name: LossName
    reduction: Reduction = Reduction.MEAN
    label_smoothing: Fraction = 0.0
    """This share of the target is spread evenly: over all classes, or over yes and no for binary_cross_entropy."""


class GanLoss(Part):
    """What both networks of a GAN play for."""

    name: Literal["binary_cross_entropy"]
    reduction: Reduction = Reduction.MEAN


class Augmentation(Part):
    """How training pictures are changed, at random, each time that they are shown."""

    max_shift: Annotated[int, Field(ge=0, le=MAX_SHIFT)] = 0
    """Moved by up to so many pixels in each direction; zeros move in."""


class EarlyStopping(Part):
    """When to end before the last epoch. The job succeeds, with the weights of the epoch in which it ends."""

    metric: StopMetric = StopMetric.VAL_LOSS
    patience: Annotated[int, Field(ge=1, le=MAX_EPOCHS)]
    """So many epochs without the metric becoming better end the run."""
    min_delta: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Better is better by more than this."""


class Checkpointing(Part):
    """Which checkpoints are kept. The last one of a run and the best so far always are."""

    every_epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS)] = 1
    """One after every so many epochs."""
    keep_last: Annotated[int, Field(ge=1, le=MAX_EPOCHS)] = 3
    """So many of the latest; as many as there are epochs keeps them all, to go back to any epoch later."""


class Sampling(Part):
    """How often a picture of samples is made, and of how many."""

    every_epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS)] = 1
    count: Annotated[int, Field(ge=1, le=400)] = 64


class Health(Part):
    """What becomes of findings: things that are wrong with a training, seen in its metrics."""

    stop_on: Annotated[list[FindingCode], Field(max_length=10)] = []
    """The job fails as soon as one of these is found; its last checkpoint stays."""


class GanHealth(Health):
    """The same, and how often the judge looks at samples, where the data set has one."""

    every_epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS)] = 5
    """It looks at the last epoch too."""
    samples: Annotated[int, Field(ge=100, le=MAX_JUDGED)] = 1000


class Common(Part):
    """What every kind of training has."""

    kind: Kind
    preset: str
    name: PlainText | None = None
    tags: Annotated[list[Label], Field(max_length=20)] = []
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    dataset: Data
    initializer: Initializer
    optimizer: Optimizer
    schedule: Schedule = Constant(name="constant")
    epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS)]
    batch_size: Annotated[int, Field(ge=1, le=MAX_BATCH)]
    shuffle: bool = True
    seed: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0
    dtype: DType = DType.FLOAT32
    checkpoint: Checkpointing = Checkpointing()
    samples: Sampling = Sampling()


class ClassifierSpec(Common):
    """Training a network that names what it sees."""

    kind: Literal[Kind.CLASSIFIER]
    layers: Layers
    loss: ClassifierLoss
    augmentation: Annotated[Augmentation, ADDED_LATER] = Augmentation()
    average_decay: Annotated[AverageDecay, ADDED_LATER] = None
    """The network that is validated and kept is a moving average of the weights over some 1 / (1 - decay) steps."""
    early_stopping: Annotated[EarlyStopping | None, ADDED_LATER] = None
    health: Annotated[Health, ADDED_LATER] = Health()


class Latent(Part):
    """The space a generator draws its noise from."""

    dim: Annotated[int, Field(ge=1, le=MAX_LATENT)]
    distribution: Distribution = Distribution.UNIFORM


class Generator(Part):
    """The network that turns noise into pictures. What is null is taken from the spec around it."""

    layers: Layers
    optimizer: Optimizer | None = None
    schedule: Schedule | None = None
    average_decay: Annotated[AverageDecay, ADDED_LATER] = None
    """Samples are made with a moving average of the weights over some 1 / (1 - decay) steps."""


class Discriminator(Part):
    """The network that tells real pictures from made ones. What is null is taken from the spec around it."""

    layers: Layers
    optimizer: Optimizer | None = None
    schedule: Schedule | None = None
    skip_every: Annotated[int, Field(ge=2, le=1000)] | None = None
    """Not updated in iterations ``i % skip_every == 0``: the seed's cure for a discriminator that wins."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Real pictures are to be called ``1 - label_smoothing`` instead of 1."""


class GanSpec(Common):
    """Training a generator and a discriminator against each other."""

    kind: Literal[Kind.GAN]
    latent: Latent
    generator: Generator
    discriminator: Discriminator
    loss: GanLoss
    health: Annotated[GanHealth, ADDED_LATER] = GanHealth()


Spec = ClassifierSpec | GanSpec
