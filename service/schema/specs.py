"""The fields that the specs of all kinds of training have."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field

from service.schema.base import (
    MAX_ACCUMULATED,
    MAX_BATCH,
    MAX_EPOCHS,
    MAX_FOLDS,
    Fraction,
    Label,
    PlainText,
    StrictModel,
)
from service.schema.layers import Initializer, Layer
from service.schema.optimizers import Constant, Optimizer, Schedule
from service.states import FindingCode, Kind


class DType(StrEnum):
    """The floating point type of the whole training."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


class Reduction(StrEnum):
    """How the losses of a batch are combined."""

    MEAN = "mean"
    SUM = "sum"


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


def limited_to(*codes: FindingCode) -> Any:
    """Restrict a list of findings in the JSON Schema to those of a kind of training (``KindOfJob.findings``)."""
    return Field(json_schema_extra={"x-choices": [code.value for code in codes]})


class JobBudget(StrictModel):
    """What a job may use."""

    seconds: Annotated[float, Field(gt=0, le=1e9, title="CPU seconds", examples=[3600])]
    """CPU time of all attempts together. When it is used up, the job pauses after the current batch; raise the budget
    and resume it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedNetwork:
    """A network of a spec, with the settings that train it: its own, or those of the spec."""

    name: str = ""
    """The field of the spec that has it; empty: the spec itself."""
    letter: str = ""
    """Before the names of its metrics: ``g_``."""
    layers: Sequence[Layer]
    optimizer: Optimizer
    schedule: Schedule
    has_own_optimizer: bool = False
    average_decay: float | None = None

    @property
    def path(self) -> str:
        """Dotted path in the spec, with a dot at the end unless it is empty."""
        return f"{self.name}." if self.name else ""


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

    @property
    @abstractmethod
    def trained_networks(self) -> Sequence[TrainedNetwork]:
        """The networks that are trained, in the order in which a page names them."""

    @property
    @abstractmethod
    def stop_on(self) -> Sequence[FindingCode]:
        """The findings that fail the job."""

    @property
    def takes_class(self) -> bool:
        """Whether its networks also take the class of an example."""
        return False

    @property
    def weight_settings(self) -> dict[str, Any]:
        """What weights depend on besides layers and precision, by pointer."""
        return {}

    @property
    def scored_every_epochs(self) -> int:
        """After how many epochs the metrics that are not measured after each one are measured."""
        return 1

    @property
    def absent_metrics(self) -> frozenset[str]:
        """Metrics of its kind that a job with this spec does not report."""
        return frozenset()

    def hashed(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """What digests of the spec cover of its document."""
        return document
