"""The specs of classifiers, regressors and GANs, and their parts except layers and optimizers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from service.spec.schema.base import (
    MAX_ACCUMULATED,
    MAX_BATCH,
    MAX_CRITIC_STEPS,
    MAX_CUTOUT,
    MAX_EPOCHS,
    MAX_FOLDS,
    MAX_LATENT,
    MAX_PACK,
    MAX_PENALTY,
    MAX_SCORED_SAMPLES,
    MAX_SHIFT,
    Fraction,
    Label,
    PlainText,
    StrictModel,
)
from service.spec.schema.layers import Initializer, Layers
from service.spec.schema.optimizers import Constant, Optimizer, Schedule
from service.states import FindingCode


class Kind(StrEnum):
    """What to train."""

    CLASSIFIER = "classifier"
    REGRESSOR = "regressor"
    GAN = "gan"


class DType(StrEnum):
    """The floating point type of the whole training."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


class Reduction(StrEnum):
    """How the losses of a batch are combined."""

    MEAN = "mean"
    SUM = "sum"


class LossName(StrEnum):
    """The losses of a classifier."""

    SQUARED_ERROR = "squared_error"
    BINARY_CROSS_ENTROPY = "binary_cross_entropy"
    SOFTMAX_CROSS_ENTROPY = "softmax_cross_entropy"


class RegressorLossName(StrEnum):
    """The losses of a regressor."""

    SQUARED_ERROR = "squared_error"
    ABSOLUTE_ERROR = "absolute_error"
    HUBER = "huber"


class ClassWeights(StrEnum):
    """How the classes are weighted in the loss."""

    BALANCED = "balanced"


class GanLossName(StrEnum):
    """The losses of a GAN."""

    BINARY_CROSS_ENTROPY = "binary_cross_entropy"
    LEAST_SQUARES = "least_squares"
    HINGE = "hinge"
    WASSERSTEIN = "wasserstein"


class StopMetric(StrEnum):
    """Metrics that early stopping can watch: losses should fall, accuracies rise."""

    VAL_LOSS = "val_loss"
    VAL_ACCURACY = "val_accuracy"
    TRAIN_LOSS = "train_loss"
    TRAIN_ACCURACY = "train_accuracy"


class RegressorStopMetric(StrEnum):
    """Metrics of a regressor that early stopping can watch: all should fall, except ``val_r2``."""

    VAL_LOSS = "val_loss"
    VAL_RMSE = "val_rmse"
    VAL_MAE = "val_mae"
    VAL_R2 = "val_r2"
    TRAIN_LOSS = "train_loss"


class Distribution(StrEnum):
    """Distribution of a GAN's latent noise: uniform in [-1, 1], or standard normal."""

    UNIFORM = "uniform"
    NORMAL = "normal"


class Reuse(StrEnum):
    """What of earlier jobs a job may take over instead of computing it again. The bits are the same."""

    NEVER = "never"
    EXACT = "exact"
    PREFIX = "prefix"


AverageDecay = Fraction | None


class Data(StrictModel):
    """The dataset to train on."""

    name: Annotated[str, Field(min_length=1, max_length=129)]
    """The dataset to train on. Its validation examples are used only to measure. For an upload, a name means the newest
    version; `mine@1a2b3c4d` is the version of `mine` whose SHA-256 starts with these digits."""
    scale: Annotated[
        list[Annotated[float, Field(ge=-1000, le=1000)]],
        Field(min_length=2, max_length=2, title="Pixel range"),
    ]
    """The range to which pixel values (0 to 255) are mapped. Usually 0, 1 for classifiers; GANs whose generator ends in
    tanh need -1, 1."""

    validation_fraction: Annotated[Annotated[float, Field(gt=0, lt=1)] | None, Field(title="Validation fraction")] = (
        None
    )
    """Split the training and validation examples again: use this fraction of each class for validation. None: keep the
    dataset's own split. The test part, if there is one, is not affected."""
    folds: Annotated[int, Field(ge=2, le=MAX_FOLDS)] | None = None
    """Cross-validation: split the examples into this many stratified folds. Without `fold`, a job is submitted for each
    fold; it validates on that fold and trains on the others."""
    fold: Annotated[int, Field(ge=0, lt=MAX_FOLDS)] | None = None
    """The fold that this job validates on, counted from 0. Without it, a job is submitted for each fold."""
    split_seed: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None
    """Seed of the split. None: the seed of the job. Set it to compare jobs with different seeds on the same split."""


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


class RegressorLoss(StrictModel):
    """The function that a regressor minimizes, of the target in standard deviations of the training part."""

    name: Annotated[RegressorLossName, Field(title="Function")]
    """squared_error predicts the mean. absolute_error predicts the median, which a few extreme targets hardly change.
    huber is the squared error up to one standard deviation, and the absolute error beyond it."""
    reduction: Reduction = Reduction.MEAN
    """Whether the gradient is that of the mean or of the sum of the losses of a batch. With sum, the learning rate
    must be lower by about the batch size."""


class GanLoss(StrictModel):
    """The function that both networks of a GAN are trained with."""

    name: Annotated[GanLossName, Field(title="Function")]
    """binary_cross_entropy needs a discriminator that ends with sigmoid; the others need one that ends with linear.
    wasserstein also needs gradient_penalty or spectral_norm. hinge is often used with spectral_norm."""
    reduction: Reduction = Reduction.MEAN
    """Whether the gradient is that of the mean or of the sum of the losses of a batch. With sum, the learning rate
    must be lower by about the batch size."""


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


class EarlyStopping(StrictModel):
    """Ends the run before the last epoch when a metric stops improving. The job succeeds."""

    metric: StopMetric = StopMetric.VAL_LOSS
    """The metric to watch: a loss should fall, an accuracy rise."""
    patience: Annotated[int, Field(ge=1, le=MAX_EPOCHS)]
    """Number of epochs without improvement after which the run ends. Usually 5 to 20."""
    min_delta: Annotated[float, Field(ge=0, le=1e6, title="Minimum improvement")] = 0.0
    """Smaller changes than this do not count as improvement."""


class RegressorEarlyStopping(EarlyStopping):
    """Ends the run before the last epoch when a metric stops improving. The job succeeds."""

    metric: RegressorStopMetric = RegressorStopMetric.VAL_LOSS  # type: ignore[assignment]  # the metrics of regressors
    """The metric to watch: losses and errors should fall, r2 rise."""


KEEP_LAST: Final = 3
"""Default number of checkpoints that a running job keeps. If the newest is damaged, the job continues from an older
one."""


class Checkpointing(StrictModel):
    """Checkpoint retention. The best and the latest checkpoint are always kept."""

    every_epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS, title="Every n epochs")] = 1
    """Save a checkpoint after every n epochs. An interrupted job continues from the latest one."""
    keep_last: Annotated[Annotated[int, Field(ge=1, le=MAX_EPOCHS)] | None, Field(title="Keep the latest")] = None
    """Number of recent checkpoints to keep. Set it to the number of epochs to be able to fork from any epoch. None:
    three until the job has succeeded, then only the best and the latest."""


class Sampling(StrictModel):
    """Sample grids: generated images of a GAN, or classified images of a classifier."""

    every_epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS, title="Every n epochs")] = 1
    """Make a sample grid after every n epochs. The animation of a job has one frame for each."""
    count: Annotated[int, Field(ge=1, le=400, title="Images per grid")] = 64
    """Number of images in each sample grid. A square number fills it."""


def _limited_to(*codes: FindingCode) -> Any:
    """Restrict a list of findings in the JSON Schema to those that a kind of training can have (``findings.CODES``)."""
    return Field(json_schema_extra={"x-choices": [code.value for code in codes]})


SUPERVISED_FINDINGS: Final = (
    FindingCode.DIVERGING,
    FindingCode.VANISHING_GRADIENT,
    FindingCode.OVERFITTING,
    FindingCode.DEAD_UNITS,
    FindingCode.SATURATION,
    FindingCode.LEAK,
)
GAN_FINDINGS: Final = (
    FindingCode.MODE_COLLAPSE,
    FindingCode.DISCRIMINATOR_WINS,
    FindingCode.VANISHING_GRADIENT,
    FindingCode.DIVERGING,
    FindingCode.DEAD_UNITS,
    FindingCode.SATURATION,
)


class Health(StrictModel):
    """How to react to problems that the metrics show."""

    stop_on: Annotated[list[FindingCode], Field(max_length=10), _limited_to(*SUPERVISED_FINDINGS)] = []
    """Fail the job as soon as one of these findings appears, instead of only reporting it. The last checkpoint is
    kept."""


class GanHealth(Health):
    """How to react to problems that the metrics show, and how often samples are scored."""

    stop_on: Annotated[list[FindingCode], Field(max_length=10), _limited_to(*GAN_FINDINGS)] = []
    """Fail the job as soon as one of these findings appears, instead of only reporting it. The last checkpoint is
    kept."""
    every_epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS, title="Every n epochs")] = 5
    """Score samples with the reference classifier after every n epochs, and after the last one. Only datasets with a
    reference classifier (mnist and mnist-10k) have scores."""
    samples: Annotated[int, Field(ge=100, le=MAX_SCORED_SAMPLES, title="Samples to score")] = 1000
    """Number of samples to score. More give a more precise Fréchet distance and take longer."""


class JobBudget(StrictModel):
    """What a job may use."""

    seconds: Annotated[float, Field(gt=0, le=1e9, title="CPU seconds", examples=[3600])]
    """CPU time of all attempts together. When it is used up, the job pauses after the current batch; raise the budget
    and resume it."""


class BaseSpec(StrictModel):
    """Fields of all specs."""

    kind: Kind
    """What to train."""
    preset: str
    """The set of defaults: every field that is left out has the preset's value."""
    name: PlainText | None = None
    """A name to find the job by. It need not be unique."""
    tags: Annotated[list[Label], Field(max_length=20)] = []
    """Labels to filter and group jobs by."""
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    """Up to 5, the order of your own jobs: higher ones start first. Urgent jobs, 6 to 9, start before those of all
    owners and take the slot of a less urgent one, if the owner's settings allow it."""
    budget: JobBudget | None = None
    """What the job may use before it pauses. None: no limit."""
    reuse: Annotated[Reuse, Field(title="Reuse results")] = Reuse.NEVER
    """exact: take over the whole result of an equal job. prefix: also go on from the checkpoint of a job that differs
    only in `epochs`, if the schedule is constant or step. Code, NumPy, processor and data must be the same as well, so
    the bits are those of a training from the start."""
    dataset: Data
    """The dataset to train on, its split, and the range of pixel values."""
    initializer: Initializer
    """How the weights are drawn before training: he for relu, glorot for tanh and sigmoid."""
    optimizer: Optimizer
    """How weights are updated from gradients."""
    schedule: Schedule = Constant(name="constant")
    """How the learning rate changes during the run."""
    epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS)]
    """Number of passes over the training data. Training time is proportional to it; with too many epochs, a network
    overfits."""
    batch_size: Annotated[int, Field(ge=1, le=MAX_BATCH)]
    """Number of examples in each training step. Usually 32 to 256. Larger batches are faster per epoch, but take fewer
    steps; raise the learning rate with them."""
    accumulate: Annotated[int, Field(ge=1, le=MAX_ACCUMULATED, title="Batches per update")] = 1
    """Add up the gradients of this many batches before each update: the effect of a larger batch in the memory of a
    small one."""
    shuffle: bool = True
    """Visit the training examples in a new random order in every epoch."""
    seed: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0
    """Seed of all random numbers: the same spec and seed give the same weights. Change it to see how much results
    vary."""
    dtype: Annotated[DType, Field(title="Precision")] = DType.FLOAT32
    """Precision of all computation. float64 takes about twice the time and memory."""
    checkpoint: Checkpointing = Checkpointing()
    """When checkpoints are saved and which are kept."""
    samples: Sampling = Sampling()
    """When sample grids are made."""


class SupervisedSpec(BaseSpec):
    """Fields of the specs of one network that learns from examples with targets."""

    layers: Layers
    """The network, from input to output."""
    loss: ClassifierLoss | RegressorLoss
    """The function to minimize."""
    average_decay: Annotated[AverageDecay, Field(title="Weight averaging (decay)")] = None
    """Validate and store a moving average of the weights over about 1 / (1 - decay) steps. Usually 0.99 to 0.9999, or
    none. It smooths out noise late in the run."""
    early_stopping: EarlyStopping | None = None
    """End the run when a metric stops improving."""
    health: Health = Health()
    """How to react to problems that the metrics show."""


class ClassifierSpec(SupervisedSpec):
    """Train a network that classifies images or rows of a table."""

    kind: Literal[Kind.CLASSIFIER]
    layers: Layers
    """The network, from input to output. The last layer has one unit for each class."""
    loss: ClassifierLoss
    """The function to minimize."""
    augmentation: Augmentation = Augmentation()
    """Random changes to the training images."""


class RegressorSpec(SupervisedSpec):
    """Train a network that predicts a number from the other columns of a table."""

    kind: Literal[Kind.REGRESSOR]
    layers: Layers
    """The network, from input to output. The last layer is dense, with one unit and no activation (linear)."""
    loss: RegressorLoss
    """The function to minimize."""
    early_stopping: RegressorEarlyStopping | None = None
    """End the run when a metric stops improving."""


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


Spec = ClassifierSpec | RegressorSpec | GanSpec
SPEC_MODELS: Final[dict[Kind, type[Spec]]] = {
    Kind.CLASSIFIER: ClassifierSpec,
    Kind.REGRESSOR: RegressorSpec,
    Kind.GAN: GanSpec,
}
"""The model of each kind of spec."""
