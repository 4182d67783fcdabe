"""What each column of a table is, from all of its values: a number, a date, a category, or nothing to learn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.datasets.tables.values import DATES, MISSING, dates, numbers

MAX_CATEGORIES: Final = 256
MAX_TEXT: Final = 100
"""Characters of a category."""
_MANY: Final = 20
"""More categories than these, in more than half as many rows, are names or sentences, not categories."""


class ColumnType(StrEnum):
    """What a person may say that a column is."""

    NUMBER = "number"
    CATEGORY = "category"
    DATE = "date"
    IGNORE = "ignore"


class BadCell(ValueError):
    """A cell is not of the type that a person says its column has; ``row`` is its place in the block."""

    def __init__(self, row: int, text: str, wanted: str) -> None:
        super().__init__(row, text, wanted)
        self.row, self.text, self.wanted = row, text, wanted


class ColumnScan:
    """Sees all values of a column, block by block.

    Args:
        wanted: the type that a person gives it; ``None``: detect it.
        decimal_comma: whether ``3,14`` is a number.
    """

    def __init__(self, name: str, wanted: ColumnType | None, *, decimal_comma: bool) -> None:
        self.name, self.wanted = name, wanted
        self._decimal_comma, self._uses_commas = decimal_comma, False
        self._forms: list[str] = {
            ColumnType.NUMBER: ["number"],
            ColumnType.DATE: list(DATES),
            ColumnType.CATEGORY: [],
            None: ["number", *DATES],
        }[wanted]
        self._is_new = True
        self._categories: dict[str, None] = {}
        self._is_text = False
        self.missing = self.rows = 0
        self._low, self._high = math.inf, -math.inf
        self._last: float | None = None
        self._counts_rows = True

    def probe(self, texts: Sequence[str]) -> None:
        """Check values against the type that was asked for, before they are added.

        Raises:
            BadCell: names the first that is of another.
        """
        if not any(self._pass(texts, form) for form in self._forms):
            raise self._bad_cell(texts)

    def add(self, texts: Sequence[str]) -> None:
        """See some more values."""
        found: NDArray[np.float64] | None = None
        left = []
        for form in self._forms:
            try:
                parsed = self._parsed(texts, form)
            except ValueError:
                continue
            left.append(form)
            found = parsed if found is None else found
            if not self._is_new and form == "number":
                break
        if found is None:
            stripped = [text.strip() for text in texts]
            missing = sum(text in MISSING for text in stripped)
            self._counts_rows = False
        else:
            missing = int(np.isnan(found).sum())
            self._measure(found, missing)
        self._forms = left if missing < len(texts) else self._forms  # nothing but missing values tells nothing
        self._is_new = self._is_new and missing == len(texts)
        self.missing, self.rows = self.missing + missing, self.rows + len(texts)
        if len(self._categories) <= MAX_CATEGORIES and not self._is_text:
            self._categories.update(dict.fromkeys(text for text in map(str.strip, set(texts)) if text not in MISSING))
            self._is_text = any(len(text) > MAX_TEXT for text in self._categories)

    def values(self, texts: Sequence[str], column: Mapping[str, Any]) -> NDArray[np.float64]:
        """The values as they are stored, once ``describe`` has told what they are."""
        match column["type"]:
            case ColumnType.NUMBER:
                return numbers(texts, decimal_comma=self._decimal_comma)
            case ColumnType.DATE:
                return dates(texts, column["format"])
        codes = {text: float(code) for code, text in enumerate(column["categories"])}
        return np.array([codes.get(text.strip(), math.nan) for text in texts], np.float64)

    def describe(self) -> dict[str, Any] | str:
        """What the column is, or why it is left out.

        Raises:
            ValueError: it cannot be of the type that was asked for.
        """
        present = self.rows - self.missing
        about: dict[str, Any] = {"name": self.name, "type": ColumnType.CATEGORY.value, "missing": self.missing}
        if self.wanted is ColumnType.CATEGORY:
            if self._is_text:
                raise ValueError(f"has values of more than {MAX_TEXT} characters, which are text, not categories")
            if len(self._categories) > MAX_CATEGORIES:
                raise ValueError(f"has more than {MAX_CATEGORIES} different values, too many for categories")
            return about | {"categories": sorted(self._categories)}
        if not present:
            return "has no values"
        if self._forms:
            form = self._forms[0]
            about |= {"min": self._low, "max": self._high}
            if self.wanted is None and self._low == self._high and not self.missing:
                return "has the same value in every row"
            if form != "number":
                return about | {"type": ColumnType.DATE.value, "format": form}
            if self.wanted is None and self._counts_rows and self.rows > _MANY:
                return "counts the rows"
            return about | {"type": ColumnType.NUMBER.value} | ({"decimal": ","} if self._uses_commas else {})
        count = len(self._categories)
        if self._is_text:
            return f"has texts of more than {MAX_TEXT} characters"
        if count > MAX_CATEGORIES:
            return f"has more than {MAX_CATEGORIES} different texts"
        if count > _MANY and count > present / 2:
            return f"has {count:,} different texts in {present:,} rows"
        if count == 1 and not self.missing:
            return "has the same value in every row"
        return about | {"categories": sorted(self._categories)}

    @property
    def note(self) -> str | None:
        """What a person should check."""
        if len(self._forms) > 1 and "%m/%d/%Y" in self._forms:
            return f"column {self.name!r}: dates such as 03/04/2024 were read as month/day/year"
        if self._uses_commas and self._forms[:1] == ["number"]:
            return f"column {self.name!r}: commas were read as decimal commas"
        return None

    def _parsed(self, texts: Sequence[str], form: str) -> NDArray[np.float64]:
        if form != "number":
            return dates(texts, form)
        if not self._decimal_comma:
            return numbers(texts)
        found = numbers(texts, decimal_comma=True)
        self._uses_commas = self._uses_commas or any("," in text for text in texts)
        return found

    def _measure(self, found: NDArray[np.float64], missing: int) -> None:
        if missing == len(found):
            self._counts_rows = False
            return
        self._low = min(self._low, float(np.nanmin(found)))
        self._high = max(self._high, float(np.nanmax(found)))
        if self._counts_rows:  # 0, 1, 2, ... or 1, 2, 3, ...
            before = self._last if self._last is not None else float(found[0]) - 1
            self._counts_rows = not missing and before in (-1.0, 0.0, self._last)
            self._counts_rows = self._counts_rows and bool((np.diff(found, prepend=before) == 1).all())
            self._last = float(found[-1])

    def _bad_cell(self, texts: Sequence[str]) -> BadCell:
        """The first cell that does not have the type that was asked for."""
        forms = self._forms
        for row, text in enumerate(texts):
            passing = [form for form in forms if self._pass([text], form)]
            if not passing:
                return BadCell(row, text.strip()[:40], str(self.wanted))
            forms = passing
        raise AssertionError("all cells pass")

    def _pass(self, texts: Sequence[str], form: str) -> bool:
        try:
            self._parsed(texts, form)
        except ValueError:
            return False
        return True
