"""The facts about a dataset, and the names and digests of dataset files."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, Self

from service.spec.estimation.features import features_of
from service.spec.splits import Split
from service.states import DatasetKind, Task
from service.wording import counted, listed

OnProgress = Callable[[float], None]
"""Called with the fraction of an import that is done, from 0 to 1, each time it grows."""

DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""The names of uploads, which are safe to join to a path: no hidden folders (the cache), no separators."""
TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
VALIDATION_IMAGES = "t10k-images-idx3-ubyte"
VALIDATION_LABELS = "t10k-labels-idx1-ubyte"
TEST_IMAGES = "test-images-idx3-ubyte"
TEST_LABELS = "test-labels-idx1-ubyte"
IDX_NAMES = (TRAIN_IMAGES, TRAIN_LABELS, VALIDATION_IMAGES, VALIDATION_LABELS)
"""MNIST's names of the four files, in the order in which they are digested."""
TEST_NAMES = (TEST_IMAGES, TEST_LABELS)
"""The two further files of a dataset with a test part."""
COLUMNS_FILE = "columns.json"
META = "meta.json"
"""The file of a folder that names its arrays, with their digests."""
"""The columns and class names of a table as canonical JSON, which are part of its digest."""


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
"""The part that each name of a folder in an archive, or value of a split column, denotes, in lower case."""


CHANNELS_GIVEN = "as given"
"""The reason in the report of an import that was told the number of channels, and did not detect colours."""


_MAX_NAMED: Final = 5
"""Maximum number of classes that a note names."""
BRIGHT_LEVEL: Final = 0.25
"""Images with a mean level (from 0 to 1) above this are bright. MNIST's is 0.13."""


class Fit(StrEnum):
    """How image files of another shape are brought to the size of a dataset."""

    CROP = "crop"
    """Scaled to cover it; what extends beyond it on two sides is cut off."""
    PAD = "pad"
    """Scaled into it; the rest is black."""


class DatasetState(StrEnum):
    """Whether a job can train on a dataset."""

    READY = "ready"
    DOWNLOAD = "download"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """The facts about a dataset that are known without unpacking it."""

    name: str
    title: str
    kind: DatasetKind = DatasetKind.IMAGES
    image_shape: tuple[int, ...]  # (rows, columns), in colour (rows, columns, 3); empty for a table or damaged files
    columns: tuple[Mapping[str, Any], ...] = field(
        default=(), hash=False
    )  # of a table, in the order of the file: name, type, ...
    classes: int  # 0 for a table whose target is a number
    train_count: int
    validation_count: int
    test_count: int = 0  # number of examples of the test part; 0: no test part
    class_names: tuple[str, ...]
    source: str
    licence: str
    sha256: str | None  # of the unpacked content, see content_sha256; None while unknown
    available: bool  # whether it can be used without a download
    problem: str | None = None  # the error of its files, if any
    upload_id: str | None = None  # of an uploaded dataset
    owner: str = ""  # of an uploaded dataset
    shared: bool = False  # whether all owners can use it
    report: Mapping[str, Any] | None = field(
        default=None, hash=False
    )  # decisions and omissions of the import of an upload
    versions: tuple[str, ...] = ()  # of an upload, as `name@digits`, newest first
    pinned_sha256: str | None = None  # the version with which a job started
    split: Split | None = None  # the split of a job
    download_bytes: int = 0  # compressed size of the missing files
    download_from: tuple[str, ...] = ()  # hosts, tried in turn
    download_problem: str | None = None  # why a download would fail, if known

    def divided(self, split: Split | None) -> Self:
        """The same data with the split of a job; ``None`` keeps the dataset's own parts."""
        if split is None:
            return self
        pool = self.train_count + self.validation_count
        validation_count = split.validation_count(pool)
        return replace(self, train_count=pool - validation_count, validation_count=validation_count, split=split)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``image_shape``; for a table, one row of network inputs."""
        return (1, features_of(self.columns)) if self.kind is DatasetKind.TABLE else self.image_shape

    @property
    def task(self) -> Task:
        """What a network learns from it."""
        return Task.of(self.kind, self.classes)

    @property
    def target(self) -> str:
        """The target column of a table."""
        return str((self.report or {}).get("target", ""))

    @property
    def unused_columns(self) -> tuple[str, ...]:
        """Columns of a table that no network uses, but rows for prediction may have, such as the target."""
        report = self.report or {}
        names = (self.target, *(column["name"] for column in report.get("ignored", ())))
        return tuple(str(name) for name in names)

    @property
    def is_photos(self) -> bool:
        """Whether it was imported from image files, which the import decoded and perhaps fitted to a size."""
        return self.kind is DatasetKind.IMAGES and "channels" in (self.report or {})

    @property
    def pads_photos(self) -> bool:
        """Whether the import added borders to image files, instead of cropping them."""
        return bool((self.report or {}).get("fit") == Fit.PAD)

    @property
    def has_photos(self) -> bool:
        """Whether its images are photos rather than drawings such as digits: image files, or images in colour."""
        return self.is_photos or (self.kind is DatasetKind.IMAGES and len(self.image_shape) > 2)

    @property
    def detects_colours(self) -> bool:
        """Whether the import of image files had to detect if there are colours."""
        channels = (self.report or {}).get("channels", {})
        return self.is_photos and channels.get("reason") != CHANNELS_GIVEN

    @property
    def is_bright(self) -> bool:
        """Whether it was imported from arrays whose images are not mostly black."""
        return bool((self.report or {}).get("mean_level", 0.0) > BRIGHT_LEVEL)

    @property
    def version(self) -> str | None:
        """The name of this version of an upload: ``mine@1a2b3c4d5e6f``."""
        return None if self.upload_id is None or self.sha256 is None else version_name(self.name, self.sha256)

    @property
    def state(self) -> DatasetState:
        """Whether a job can train on it immediately, after a download, or probably not at all."""
        if self.available:
            return DatasetState.READY
        if self.problem is not None or self.download_problem is not None or not self.download_from:
            return DatasetState.UNAVAILABLE
        return DatasetState.DOWNLOAD

    @property
    def state_reason(self) -> str | None:
        """Why it is not ready, as a sentence; ``None`` if it is ready."""
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
    """The result of an import."""

    kind: DatasetKind = DatasetKind.IMAGES
    image_shape: Sequence[int]
    """See ``DatasetInfo``."""
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
    """In the order of the labels; ``None`` if only the numeric labels are known."""
    report: Mapping[str, Any] | None = None
    """Decisions and omissions of the import, for the user."""


def brightness_report(mean_level: float) -> dict[str, Any] | None:
    """The report of an import of arrays: the mean of their pixels, from 0 (black) to 1, where it matters."""
    if mean_level <= BRIGHT_LEVEL:
        return None
    advice = (
        "a classifier starts from the preset conv unless its spec names another, since fast diverges on such images"
    )
    return {"mean_level": round(mean_level, 3), "notes": [f"the images are bright: {advice}"]}


def unscored_note(
    train_counts: Sequence[int], validation_counts: Sequence[int], class_names: Sequence[str] | None, *, noun: str
) -> str | None:
    """The note of an import about classes that are trained on, but not validated; ``None`` if there are none.

    Args:
        train_counts, validation_counts: number of examples of each class; those of the highest classes may be
            left out.
        class_names: ``None`` if only the labels are known.
        noun: the word for one example.
    """
    missing = [
        label for label, count in enumerate(train_counts) if count and not any(validation_counts[label : label + 1])
    ]
    if not missing:
        return None
    descriptions = [
        f"{str(label) if class_names is None else class_names[label]!r} ({counted(train_counts[label], noun)})"
        for label in missing[:_MAX_NAMED]
    ]
    if len(missing) == 1:
        return f"the class {descriptions[0]} has no validation {noun}s: no score covers it"
    remainder = [f"{len(missing) - _MAX_NAMED:,} more"] if len(missing) > _MAX_NAMED else []
    return f"the classes {listed([*descriptions, *remainder])} have no validation {noun}s: no score covers them"


def version_name(name: str, sha256: str) -> str:
    """The name of one version of an upload: ``mine@1a2b3c4d5e6f``."""
    return f"{name}@{sha256.removeprefix('sha256:')[:12]}"


def content_sha256(digests: Mapping[str, str]) -> str:
    """One digest for all files: that of the lines that ``sha256sum`` prints for the unpacked files, in order.

    Args:
        digests: SHA-256 (hex) of each unpacked IDX file, by name; those of a test part are optional. A table has IDX
            files of doubles, followed by ``COLUMNS_FILE``.
    """
    names = [*IDX_NAMES, *(name for name in (*TEST_NAMES, COLUMNS_FILE) if name in digests)]
    lines = "".join(f"{digests[name]}  {name}\n" for name in names)
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
