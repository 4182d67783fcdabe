"""Assigns the rows of a table to the parts of a dataset: by one of its columns, or drawn from each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.datasets.formats.options import DEFAULT_FRACTION
from service.datasets.importer import UploadRefused, draw_validation_mask
from service.datasets.info import PART_WORDS, PartName
from service.datasets.tables.plan import TABLE

PARTS: Final = tuple(PartName)
"""A row's part is stored as its index in this tuple."""
_TRAIN, _VALIDATION, _TEST = range(len(PARTS))
_CODES: Final = {word: PARTS.index(part) for word, part in PART_WORDS.items()}
_UNKNOWN: Final = 255
_MAX_UNKNOWN: Final = 1000
"""Maximum number of distinct unknown words collected for the error; with more, reading stops at once."""
_MAX_NAMED_WORDS: Final = 5
_MAX_SHOWN: Final = 40
"""Maximum number of characters of a word that a message shows."""


class SplitColumn:
    """Reads the column that assigns rows to parts, block by block; keeps a byte for each row."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._parts = bytearray()
        self._unknown: Counter[str] = Counter()

    def add(self, texts: Sequence[str]) -> None:
        """Add more rows.

        Raises:
            UploadRefused: too many different values are not names of parts.
        """
        words = [text.strip().lower() for text in texts]
        codes = bytes(_CODES.get(word, _UNKNOWN) for word in words)
        self._parts += codes
        if _UNKNOWN in codes:
            self._unknown.update(text.strip() for text, code in zip(texts, codes, strict=True) if code == _UNKNOWN)
            if len(self._unknown) > _MAX_UNKNOWN:
                raise self._refusal(f"has more than {_MAX_UNKNOWN:,} different values that are no parts")

    def assign(
        self, labels: NDArray[np.uint8], class_names: Sequence[str], fraction: float | None
    ) -> tuple[NDArray[np.uint8], list[str]]:
        """The part of each row, and notes for the user.

        As for folders of an archive, test rows are used for validation if there are no validation rows, and a
        fraction of the training rows if there are neither.

        Raises:
            UploadRefused: words that are not names of parts; parts that are empty, or classes without
                training rows.
        """
        if self._unknown:
            raise self._refusal(self._unknown_words())
        parts, notes = np.frombuffer(self._parts, np.uint8).copy(), []
        counts = np.bincount(parts, minlength=len(PARTS))
        if not counts[_TRAIN]:
            raise self._refusal("assigns no row to train")
        if not counts[_VALIDATION] and counts[_TEST]:
            parts[parts == _TEST] = _VALIDATION
            notes.append(f"column {self.name!r} has no validation rows: its test rows are used for validation")
        elif not counts[_VALIDATION]:
            notes.append(f"column {self.name!r} has training rows only: a fraction of them is for validation")
            parts[draw_mask(labels, fraction)] = _VALIDATION
        if fraction is not None and counts[_TRAIN] < len(parts):
            raise UploadRefused({"validation_fraction": f"is for tables without validation rows in {self.name!r}"})
        trained_labels = np.unique(labels[parts == _TRAIN])
        for code in (_VALIDATION, _TEST):
            if len(untrained_labels := np.setdiff1d(labels[parts == code], trained_labels)):
                shown = class_names[untrained_labels[0]][:_MAX_SHOWN]
                raise self._refusal(f"assigns rows of the class {shown!r} to {PARTS[code]}, but none to train")
        return parts, notes

    def _unknown_words(self) -> str:
        descriptions = [
            f"{repr(text[:_MAX_SHOWN]) if text else 'nothing'} in {count:,} {'row' if count == 1 else 'rows'}"
            for text, count in self._unknown.most_common(_MAX_NAMED_WORDS)
        ]
        remaining = len(self._unknown) - _MAX_NAMED_WORDS
        shown = ", ".join(descriptions) + (f", and {remaining:,} more" if remaining > 0 else "")
        return f"must say train, validation (or val) or test in every row; it says {shown}"

    def _refusal(self, detail: str) -> UploadRefused:
        return UploadRefused({"split": f"column {self.name!r} {detail}"})


def draw_mask(labels: NDArray[np.uint8], fraction: float | None) -> NDArray[np.bool_]:
    """A mask of the rows for validation, if no column assigns parts: a fraction of each class."""
    return draw_validation_mask(labels, fraction or DEFAULT_FRACTION, noun="row", field=TABLE)
