"""What is known of a data set, and the names and digests of its four files."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
VALIDATION_IMAGES = "t10k-images-idx3-ubyte"
VALIDATION_LABELS = "t10k-labels-idx1-ubyte"
IDX_NAMES = (TRAIN_IMAGES, TRAIN_LABELS, VALIDATION_IMAGES, VALIDATION_LABELS)
"""MNIST's own names for the four files, in the order in which they are digested."""


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What is known of a data set without unpacking it."""

    name: str
    title: str
    image_shape: tuple[int, ...]  # (rows, columns); empty if the files are broken
    classes: int
    train_count: int
    validation_count: int
    class_names: tuple[str, ...]
    source: str
    licence: str
    sha256: str | None  # of the unpacked content, as content_sha256 gives it; None as long as it is not known
    available: bool  # can be had without a download
    problem: str | None = None  # what is wrong with its files, if something is
    upload_id: str | None = None  # of a data set that a person sent


def content_sha256(digests: Mapping[str, str]) -> str:
    """One digest for the four files: that of the lines which ``sha256sum`` prints for them, unpacked, in order.

    Args:
        digests: SHA-256 (hex) of each unpacked IDX file, by its name.
    """
    lines = "".join(f"{digests[name]}  {name}\n" for name in IDX_NAMES)
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
