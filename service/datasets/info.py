"""What is known of a dataset, how it is imported, and the names and digests of its files."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from service.spec.estimation.features import features_of
from service.spec.splits import Split
from service.states import DatasetKind

OnShare = Callable[[float], None]
"""Hears of the share of an import that is done, from 0 to 1, whenever some more is."""
Size = tuple[int, int]
"""Width and height in pixels, as image programs write them."""

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
VALIDATION_IMAGES = "t10k-images-idx3-ubyte"
VALIDATION_LABELS = "t10k-labels-idx1-ubyte"
TEST_IMAGES = "test-images-idx3-ubyte"
TEST_LABELS = "test-labels-idx1-ubyte"
IDX_NAMES = (TRAIN_IMAGES, TRAIN_LABELS, VALIDATION_IMAGES, VALIDATION_LABELS)
"""MNIST's own names for the four files, in the order in which they are digested."""
TEST_NAMES = (TEST_IMAGES, TEST_LABELS)
"""Two more, of a dataset with a part that is scored once, at the end."""
COLUMNS_FILE = "columns.json"
"""What the digest of a table also covers: its columns and class names, as canonical JSON."""


class PartName(StrEnum):
    """The parts of a dataset."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


PART_WORDS: Mapping[str, PartName] = {
    "train": PartName.TRAIN,
    "training": PartName.TRAIN,
    "validation": PartName.VALIDATION,
    "valid": PartName.VALIDATION,
    "val": PartName.VALIDATION,
    "test": PartName.TEST,
    "testing": PartName.TEST,
}
"""What folders of an archive and cells of a split column are called, in lower case, and the part that each means."""


class Channels(StrEnum):
    """How the images of an archive are stored."""

    GREY = "1"
    COLOUR = "3"
    AUTO = "auto"
    """In colour where any image has a saturated pixel."""


class OnBad(StrEnum):
    """What becomes of an archive with images that cannot be read."""

    ERROR = "error"
    SKIP = "skip"
    """They are left out, and the report names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoOptions:
    """How an archive of image files is read."""

    size: Size | None = None
    """Scale every image to cover this size and cut off what juts out, evenly. Without it all must have one size."""
    channels: Channels = Channels.AUTO
    on_bad: OnBad = OnBad.ERROR


class DatasetState(StrEnum):
    """Whether a job can train on a dataset."""

    READY = "ready"
    DOWNLOAD = "download"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What is known of a dataset without unpacking it."""

    name: str
    title: str
    kind: DatasetKind = DatasetKind.IMAGES
    image_shape: tuple[int, ...]  # (rows, columns), in colour (rows, columns, 3); empty: a table, or broken files
    columns: tuple[Mapping[str, Any], ...] = field(
        default=(), hash=False
    )  # of a table, in the file's order: name, type, ...
    classes: int
    train_count: int
    validation_count: int
    test_count: int = 0  # examples that are scored once, at the end; 0: there is no such part
    class_names: tuple[str, ...]
    source: str
    licence: str
    sha256: str | None  # of the unpacked content, as content_sha256 gives it; None as long as it is not known
    available: bool  # can be had without a download
    problem: str | None = None  # what is wrong with its files, if something is
    upload_id: str | None = None  # of a dataset that a person sent
    report: Mapping[str, Any] | None = field(
        default=None, hash=False
    )  # what the import of an upload left out or decided
    versions: tuple[str, ...] = ()  # of an upload's name, as `name@digits`, the newest first
    pinned_sha256: str | None = None  # what it must be for one job, which began with it
    split: Split | None = None  # how one job divides training and validation anew
    download_bytes: int = 0  # of the packed files that are not here
    download_from: tuple[str, ...] = ()  # hosts, tried in turn
    download_problem: str | None = None  # why a download would fail, as far as is known

    def divided(self, split: Split | None) -> Self:
        """The same data as one job divides them; ``None``: as they are."""
        if split is None:
            return self
        pool = self.train_count + self.validation_count
        validated = split.validation_count(pool)
        return replace(self, train_count=pool - validated, validation_count=validated, split=split)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``image_shape``, or one row of the inputs that the columns of a table become."""
        return (1, features_of(self.columns)) if self.kind is DatasetKind.TABLE else self.image_shape

    @property
    def version(self) -> str | None:
        """The name of just these data, where it is an upload: ``mine@1a2b3c4d5e6f``."""
        return None if self.upload_id is None or self.sha256 is None else version_name(self.name, self.sha256)

    @property
    def state(self) -> DatasetState:
        """Whether a job can train on it at once, after a download, or as it looks not at all."""
        if self.available:
            return DatasetState.READY
        if self.problem is not None or self.download_problem is not None or not self.download_from:
            return DatasetState.UNAVAILABLE
        return DatasetState.DOWNLOAD

    @property
    def state_reason(self) -> str | None:
        """Why it is not ready, as a sentence; ``None`` where it is."""
        if self.available:
            return None
        if self.problem is not None:
            return self.problem
        size = f"{self.download_bytes / 1e6:.0f} MB from {self.download_from[0]}" if self.download_from else ""
        if self.download_problem is not None:
            return f"It is not downloaded yet, and {self.download_problem}."
        return f"It is not downloaded yet: the first job downloads {size}." if size else "It is not available."


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedDataset:
    """The arrays that an upload became."""

    kind: DatasetKind = DatasetKind.IMAGES
    image_shape: Sequence[int]
    """As ``DatasetInfo`` has it."""
    columns: Sequence[Mapping[str, Any]] | None = None
    """Of a table."""
    classes: int
    train_count: int
    validation_count: int
    test_count: int = 0
    sha256: str
    size_bytes: int
    """Of the unpacked arrays."""
    class_names: Sequence[str] | None = None
    """In the order of the labels; ``None``: the labels are all that is known."""
    report: Mapping[str, Any] | None = None
    """What was left out or decided, for the person who sent the files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """What a person says about a table."""

    target: str | None = None
    """The label column; ``None``: the last one."""
    types: Mapping[str, str] = field(default_factory=dict)
    """By column: number, category, date or ignore; other columns are detected."""
    split: str | None = None
    """The column that assigns each row to a part; ``None``: a share of each class is for validation."""


def version_name(name: str, sha256: str) -> str:
    """The name of one version of an upload: ``mine@1a2b3c4d5e6f``."""
    return f"{name}@{sha256.removeprefix('sha256:')[:12]}"


def content_sha256(digests: Mapping[str, str]) -> str:
    """One digest for all files: that of the lines which ``sha256sum`` prints for them, unpacked, in order.

    Args:
        digests: SHA-256 (hex) of each unpacked IDX file, by its name; those of a test part may be missing. Those of a
            table's rows are IDX files of doubles, and ``COLUMNS_FILE`` comes after them.
    """
    names = [*IDX_NAMES, *(name for name in (*TEST_NAMES, COLUMNS_FILE) if name in digests)]
    lines = "".join(f"{digests[name]}  {name}\n" for name in names)
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
