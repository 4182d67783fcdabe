"""Options of an upload. Written by `make client`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict


class DeclaredOptions(TypedDict, total=False):
    """Those that the service gets."""

    size: str | None
    """Scale image files, such as to ``32`` or ``32x24`` (width x height). Those of a folder are scaled before they
    are sent, which gives the same dataset."""
    fit: Literal["crop", "pad"] | None
    """``crop`` (the default) scales images to cover the size and cuts off the rest; ``pad`` scales them into it,
    with black borders."""
    channels: Literal["1", "3", "auto"] | None
    """Store such images in grey (``1``) or in colour (``3``); by default detected from the images."""
    on_bad: Literal["error", "skip"] | None
    """``skip`` omits images that cannot be read; ``report`` of the dataset names them."""
    validation_fraction: float | None
    """Fraction of each class to set aside for validation, if the upload has no validation data."""
    target: str | None
    """The column of a table to predict (default: the last one)."""
    task: Literal["classification", "regression"] | None
    """Predict classes or numbers (default: as the target suggests)."""
    split: str | None
    """The column of a table that contains the part of each row: ``train``, ``validation`` or ``test``."""
    types: Mapping[str, str] | None
    """Types of columns of a table, instead of the detected ones: ``number``, ``category``, ``date`` or
    ``ignore``."""
