"""The training spec: every field that a person may send, with its range. A spec is data, never code.

The models describe a spec whose values are all filled in (``resolved``); ``validation.resolve`` makes one of
what a person sent. Field order here is the order in which documents show it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, Tag

from service.states import FindingCode

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
"""The most estimated peak memory of a training."""
MAX_OPERATIONS: Final = 1e16
"""The most floating-point operations of a whole run: some days of one core."""
MAX_EPOCHS: Final = 10_000
MAX_BATCH: Final = 4096
MAX_SHOWN_PIXELS: Final = 2**21
"""The most pixels of data that one sample grid shows."""
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


def applies_when(**conditions: dict[str, Any]) -> Any:
    """Mark a field that has an effect only while its neighbours meet these JSON schemas: a form hides it otherwise."""
    return Field(json_schema_extra={"x-applies-when": {**conditions}})


NegativeSlope = Annotated[float, Field(ge=0, le=1), applies_when(activation={"enum": [Activation.LEAKY_RELU.value]})]
Epsilon = Annotated[float, Field(gt=0, le=1)]


class Data(Part):
    """The images to train on."""

    name: Annotated[str, Field(min_length=1, max_length=129)]
    """The dataset to train on. Its validation images are never trained on; they only measure. Of an upload this is the
    newest version; `mine@1a2b3c4d` is the version of `mine` whose SHA-256 starts with these digits."""
    scale: Annotated[
        list[Annotated[float, Field(ge=-1000, le=1000)]],
        Field(min_length=2, max_length=2, title="Pixel range"),
    ]
    """The range that pixel values (0 to 255) are mapped to. Usually 0, 1 for classifiers; GANs whose generator ends in
    tanh need -1, 1."""


class Dense(Part):
    """Fully connected layer: every output depends on every input."""

    type: Literal["dense"] = "dense"
    units: Annotated[int, Field(ge=1, le=MAX_UNITS, examples=[100])]
    """Number of outputs. The last layer of a classifier needs one for each class. Hidden layers usually have 50 to
    1,000; more units learn finer distinctions, but cost time and overfit sooner."""
    activation: Annotated[Activation, Field(examples=[Activation.RELU.value])]
    """The function applied to each output. Use relu in hidden layers, softmax at the end of a classifier, sigmoid at
    the end of a discriminator, and tanh at the end of a generator."""
    negative_slope: NegativeSlope = 0.2
    """Slope of leaky_relu for negative inputs. Usually 0.01 to 0.2; 0 is plain relu."""


class Dropout(Part):
    """Sets random inputs to zero during training, which reduces overfitting."""

    type: Literal["dropout"]
    rate: Annotated[Fraction, Field(examples=[0.2])]
    """Share of the inputs set to zero in each training step. Usually 0.1 to 0.5. Increase it when train accuracy is
    far above val accuracy."""


class Conv2D(Part):
    """Convolution: the same small filters slide over the whole image."""

    type: Literal["conv2d"]
    filters: Annotated[int, Field(ge=1, le=MAX_FILTERS, examples=[16])]
    """Number of filters, which is the number of output channels. Usually 8 to 64, and more in later layers."""
    kernel: Annotated[int, Field(ge=1, le=MAX_KERNEL)] = 3
    """Rows and columns of each filter. 3 suits most networks; 5 sees more of the image at once and costs more."""
    stride: Annotated[int, Field(ge=1, le=MAX_SCALE)] = 1
    """Distance between neighbouring positions of a filter. 2 halves the rows and columns of the output."""
    padding: Padding = Padding.SAME
    """How to treat the border. same adds zeros around the image, so that stride 1 keeps its size; valid adds nothing,
    so that the output is smaller by kernel - 1."""
    activation: Annotated[Activation, Field(examples=[Activation.RELU.value])]
    """The function applied to each output. Use relu or leaky_relu, or linear before batch_norm."""
    negative_slope: NegativeSlope = 0.2
    """Slope of leaky_relu for negative inputs. Usually 0.01 to 0.2; 0 is plain relu."""


class MaxPool2D(Part):
    """Keeps the largest value of each window, which makes the image smaller."""

    type: Literal["max_pool2d"]
    size: Annotated[int, Field(ge=2, le=MAX_SCALE)] = 2
    """Rows and columns of each window. The image's rows and columns must be multiples of it."""


class Upsample2D(Part):
    """Repeats each pixel, which makes the image larger. Generators use it before conv2d."""

    type: Literal["upsample2d"]
    size: Annotated[int, Field(ge=2, le=MAX_SCALE)] = 2
    """How often each row and each column is repeated."""


class BatchNorm(Part):
    """Normalizes each channel over the batch, then applies an activation. The layer before it should be linear."""

    type: Literal["batch_norm"]
    activation: Activation = Activation.LINEAR
    """The function applied after normalization, usually relu."""
    momentum: Fraction = 0.9
    """Share of the running mean and variance that each step keeps; inference uses these. Usually 0.9 to 0.99: higher
    for small batches."""
    epsilon: Epsilon = 1e-5
    """Added to the variance to avoid division by zero. There is rarely a reason to change it."""
    negative_slope: NegativeSlope = 0.2
    """Slope of leaky_relu for negative inputs. Usually 0.01 to 0.2; 0 is plain relu."""


class Flatten(Part):
    """Turns images into rows of numbers, as dense layers need them."""

    type: Literal["flatten"]


class Reshape(Part):
    """Turns rows of numbers into images, as convolutions need them."""

    type: Literal["reshape"]
    shape: Annotated[
        list[Annotated[int, Field(ge=1, le=MAX_UNITS)]], Field(min_length=3, max_length=3, examples=[[7, 7, 16]])
    ]
    """Rows, columns and channels. Their product must equal the number of inputs."""


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
"""A layer by its ``type``; dense where none is given. The input of a network that begins with conv2d, max_pool2d or
upsample2d is an image (rows, columns, 1), otherwise a flat vector of pixels."""
Layers = Annotated[list[Layer], Field(min_length=1, max_length=MAX_LAYERS)]


class Uniform(Part):
    """Weights and biases are uniform in [-scale, scale]."""

    name: Literal["uniform"]
    scale: Annotated[float, Field(gt=0, le=10)]
    """Largest absolute value. Usually 0.001 to 0.1."""


class Glorot(Part):
    """Weights are uniform in ±sqrt(6 / (inputs + units)), biases zero. Suits tanh and sigmoid."""

    name: Literal["glorot"]


class He(Part):
    """Weights are normal with standard deviation sqrt(2 / inputs), biases zero. Suits relu."""

    name: Literal["he"]


Initializer = Annotated[Uniform | Glorot | He, Field(discriminator="name")]


Decay = Annotated[float, Field(ge=0, le=10)]
ClipNorm = Annotated[float, Field(gt=0, le=1e9)] | None
_CLIPPING: Final = Field(title="Gradient clipping (norm)")
_DECAYS: Final = applies_when(weight_decay={"exclusiveMinimum": 0})


class Sgd(Part):
    """Stochastic gradient descent, with momentum where it is not zero."""

    name: Literal["sgd"]
    learning_rate: Rate
    """Step size of the optimizer. For SGD usually 0.01 to 0.5. Lower it when the loss jumps or diverges; raise it when
    the loss falls slowly."""
    momentum: Fraction = 0.0
    """Share of the previous step that is added to the next one. Usually 0.9; 0 is plain gradient descent."""
    nesterov: Annotated[bool, ADDED_LATER, applies_when(momentum={"exclusiveMinimum": 0})] = False
    """Use Nesterov's momentum, which takes the gradient after the momentum step. It often converges a little
    faster."""
    weight_decay: Annotated[Decay, ADDED_LATER] = 0.0
    """L2 regularization: each weight times this factor is added to its gradient. Usually 0 to 0.001. Increase it
    against overfitting."""
    decay_biases: Annotated[bool, ADDED_LATER, _DECAYS] = True
    """Apply weight decay also to biases and to the scale and shift of batch_norm."""
    clip_norm: Annotated[ClipNorm, ADDED_LATER, _CLIPPING] = None
    """Scale gradients down when their norm over the whole network exceeds this. Usually 1 to 10, or none. Use it
    against sudden jumps of the loss."""


class Adam(Part):
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
    clip_norm: Annotated[ClipNorm, ADDED_LATER, _CLIPPING] = None
    """Scale gradients down when their norm over the whole network exceeds this. Usually 1 to 10, or none. Use it
    against sudden jumps of the loss."""


class AdamW(Part):
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
    clip_norm: Annotated[ClipNorm, _CLIPPING] = None
    """Scale gradients down when their norm over the whole network exceeds this. Usually 1 to 10, or none. Use it
    against sudden jumps of the loss."""


Optimizer = Annotated[Sgd | Adam | AdamW, Field(discriminator="name")]


class Constant(Part):
    """The learning rate stays the same."""

    name: Literal["constant"]


class Step(Part):
    """The learning rate drops at given epochs."""

    name: Literal["step"]
    at_epochs: Annotated[
        list[Annotated[int, Field(ge=1, le=MAX_EPOCHS)]], Field(min_length=1, max_length=100, title="Drop after epochs")
    ]
    """Numbers of completed epochs after which the learning rate drops, for example 30, 60, 90."""
    factor: Annotated[float, Field(gt=0, le=1)]
    """The learning rate is multiplied by this at each drop. Usually 0.1 to 0.7."""


class OneCycle(Part):
    """The learning rate rises by cosine, then falls to almost zero. Allows high rates and short trainings."""

    name: Literal["one_cycle"]
    warmup_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the run in which the learning rate rises. Usually 0.1 to 0.4."""
    start_factor: Annotated[float, Field(gt=0, le=1)] = 0.04
    """The first learning rate, as a share of the highest one."""
    end_factor: Annotated[float, Field(gt=0, le=1)] = 0.000004
    """The last learning rate, as a share of the highest one."""


class Cosine(Part):
    """The learning rate falls by cosine, after an optional linear warmup."""

    name: Literal["cosine"]
    warmup_fraction: Fraction = 0.0
    """Share of the run in which the learning rate rises linearly. 0 means no warmup; usually up to 0.1."""
    start_factor: Annotated[float, Field(gt=0, le=1), applies_when(warmup_fraction={"exclusiveMinimum": 0})] = 0.04
    """The learning rate at the start of the warmup, as a share of the highest one."""
    end_factor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The last learning rate, as a share of the highest one."""


Schedule = Annotated[Constant | Step | OneCycle | Cosine, Field(discriminator="name")]


class ClassifierLoss(Part):
    """The function that a classifier minimizes."""

    name: Annotated[LossName, Field(title="Function")]
    """Use softmax_cross_entropy unless you compare losses. It needs softmax in the last layer; binary_cross_entropy
    needs sigmoid."""
    reduction: Reduction = Reduction.MEAN
    """Whether the gradient is taken of the mean or of the sum of the losses of a batch. With sum, the learning rate
    must be lower by about the batch size."""
    label_smoothing: Fraction = 0.0
    """Share of the target that is spread evenly over all classes (binary_cross_entropy: over yes and no). Usually 0 to
    0.1. It keeps the network from being overconfident."""


class GanLoss(Part):
    """The function that both networks of a GAN are trained with."""

    name: Literal["binary_cross_entropy"]
    reduction: Reduction = Reduction.MEAN
    """Whether the gradient is taken of the mean or of the sum of the losses of a batch. With sum, the learning rate
    must be lower by about the batch size."""


class Augmentation(Part):
    """Random changes to the training images, new in every epoch."""

    max_shift: Annotated[int, Field(ge=0, le=MAX_SHIFT, title="Maximum shift in pixels")] = 0
    """Shift each image by up to this many pixels in each direction. 1 or 2 raises accuracy on digits; 0 turns it
    off."""


class EarlyStopping(Part):
    """Ends the run before the last epoch when a metric stops improving. The job succeeds."""

    metric: StopMetric = StopMetric.VAL_LOSS
    """The metric to watch: a loss should fall, an accuracy rise."""
    patience: Annotated[int, Field(ge=1, le=MAX_EPOCHS)]
    """Number of epochs without improvement after which the run ends. Usually 5 to 20."""
    min_delta: Annotated[float, Field(ge=0, le=1e6, title="Minimum improvement")] = 0.0
    """Smaller changes than this do not count as improvement."""


KEEP_LAST: Final = 3
"""Checkpoints that a running job keeps unless its spec says otherwise: should the newest be damaged, it goes on from
the one before."""


class Checkpointing(Part):
    """Checkpoint retention. The best and the latest checkpoint are always kept."""

    every_epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS, title="Every n epochs")] = 1
    """Save a checkpoint after every n epochs. An interrupted job continues from the latest one."""
    keep_last: Annotated[Annotated[int, Field(ge=1, le=MAX_EPOCHS)] | None, Field(title="Keep the latest")] = None
    """Number of recent checkpoints to keep. Set it to the number of epochs to be able to fork from any epoch. Without
    a number: three until the job has succeeded, then only the best and the latest."""


class Sampling(Part):
    """Sample grids: generated images of a GAN, or classified images of a classifier."""

    every_epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS, title="Every n epochs")] = 1
    """Make a sample grid after every n epochs. The animation of a job has one frame for each."""
    count: Annotated[int, Field(ge=1, le=400, title="Images per grid")] = 64
    """Number of images in each sample grid. A square number fills it."""


def _found_in(*codes: FindingCode) -> Any:
    """Mark a list of findings with those that a kind of training can have; ``health.codes`` is what finds them."""
    return Field(json_schema_extra={"x-choices": [code.value for code in codes]})


_CLASSIFIER_FINDINGS: Final = (
    FindingCode.DIVERGING,
    FindingCode.VANISHING_GRADIENT,
    FindingCode.OVERFITTING,
    FindingCode.DEAD_UNITS,
    FindingCode.SATURATION,
)
_GAN_FINDINGS: Final = (
    FindingCode.MODE_COLLAPSE,
    FindingCode.DISCRIMINATOR_WINS,
    FindingCode.VANISHING_GRADIENT,
    FindingCode.DIVERGING,
    FindingCode.DEAD_UNITS,
    FindingCode.SATURATION,
)


class Health(Part):
    """How to react to problems that the metrics show."""

    stop_on: Annotated[list[FindingCode], Field(max_length=10), _found_in(*_CLASSIFIER_FINDINGS)] = []
    """Fail the job as soon as one of these findings appears, instead of only reporting it. The last checkpoint is
    kept."""


class GanHealth(Health):
    """How to react to problems that the metrics show, and how often samples are scored."""

    stop_on: Annotated[list[FindingCode], Field(max_length=10), _found_in(*_GAN_FINDINGS)] = []
    """Fail the job as soon as one of these findings appears, instead of only reporting it. The last checkpoint is
    kept."""
    every_epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS, title="Every n epochs")] = 5
    """Score samples with the reference classifier after every n epochs, and after the last one. Only datasets with a
    reference classifier (mnist and mnist-10k) have scores."""
    samples: Annotated[int, Field(ge=100, le=MAX_JUDGED, title="Samples to score")] = 1000
    """Number of samples to score. More give a more precise Fréchet distance and take longer."""


class Common(Part):
    """Fields of all specs."""

    kind: Kind
    """What to train."""
    preset: str
    """The starting point: every field that is left out has the preset's value."""
    name: PlainText | None = None
    """A name to find the job by. It need not be unique."""
    tags: Annotated[list[Label], Field(max_length=20)] = []
    """Labels to filter and group jobs by."""
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    """Queued jobs with a higher priority start first. 0 to 9."""
    dataset: Data
    """The images to train on, and the range of their values."""
    initializer: Initializer
    """How the weights are drawn before training: he for relu, glorot for tanh and sigmoid."""
    optimizer: Optimizer
    """How weights are updated from gradients."""
    schedule: Schedule = Constant(name="constant")
    """How the learning rate changes during the run."""
    epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS)]
    """Number of passes over the training images. Training time is proportional to it; with too many epochs, a network
    overfits."""
    batch_size: Annotated[int, Field(ge=1, le=MAX_BATCH)]
    """Number of images in each training step. Usually 32 to 256. Larger batches are faster per epoch, but take fewer
    steps; raise the learning rate with them."""
    shuffle: bool = True
    """Visit the training images in a new random order in every epoch."""
    seed: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0
    """Start value of the random numbers: the same spec and seed give the same weights. Change it to see how much
    results vary."""
    dtype: Annotated[DType, Field(title="Precision")] = DType.FLOAT32
    """Precision of all computation. float64 takes about twice the time and memory."""
    checkpoint: Checkpointing = Checkpointing()
    """When checkpoints are saved and which are kept."""
    samples: Sampling = Sampling()
    """When sample grids are made."""


class ClassifierSpec(Common):
    """Train a network that classifies images."""

    kind: Literal[Kind.CLASSIFIER]
    layers: Layers
    """The network, from input to output. The last layer has one unit for each class."""
    loss: ClassifierLoss
    """The function to minimize."""
    augmentation: Annotated[Augmentation, ADDED_LATER] = Augmentation()
    """Random changes to the training images."""
    average_decay: Annotated[AverageDecay, ADDED_LATER, Field(title="Weight averaging (decay)")] = None
    """Validate and keep a moving average of the weights over about 1 / (1 - decay) steps. Usually 0.99 to 0.9999, or
    none. It evens out noise late in the run."""
    early_stopping: Annotated[EarlyStopping | None, ADDED_LATER] = None
    """End the run when a metric stops improving."""
    health: Annotated[Health, ADDED_LATER] = Health()
    """How to react to problems that the metrics show."""


class Latent(Part):
    """The noise that a generator turns into images."""

    dim: Annotated[int, Field(ge=1, le=MAX_LATENT)]
    """Number of random numbers for each image. Usually 32 to 128."""
    distribution: Distribution = Distribution.UNIFORM
    """What they are drawn from: uniform in [-1, 1], or standard normal."""


class Generator(Part):
    """The network that turns noise into images."""

    layers: Layers
    """The network, from noise to image. The last layer has one output for each pixel."""
    optimizer: Optimizer | None = None
    """An optimizer of its own, instead of the one under Training."""
    schedule: Schedule | None = None
    """A schedule of its own, instead of the one under Training."""
    average_decay: Annotated[AverageDecay, ADDED_LATER, Field(title="Weight averaging (decay)")] = None
    """Make samples with a moving average of the weights over about 1 / (1 - decay) steps. Usually 0.99 to 0.9999, or
    none. It makes GAN samples much steadier."""


class Discriminator(Part):
    """The network that distinguishes real images from generated ones."""

    layers: Layers
    """The network, from image to one output: the probability that the image is real."""
    optimizer: Optimizer | None = None
    """An optimizer of its own, instead of the one under Training."""
    schedule: Schedule | None = None
    """A schedule of its own, instead of the one under Training."""
    skip_every: Annotated[Annotated[int, Field(ge=2, le=1000)] | None, Field(title="Skip every n-th update")] = None
    """Skip the discriminator's update in every n-th step. Use it when the discriminator wins too easily; usually
    none."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """The discriminator's target for real images is 1 minus this. Usually 0 to 0.2. It keeps the discriminator from
    being overconfident."""


class GanSpec(Common):
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
    health: Annotated[GanHealth, ADDED_LATER] = GanHealth()
    """How to react to problems that the metrics show, and how often samples are scored."""


Spec = ClassifierSpec | GanSpec
