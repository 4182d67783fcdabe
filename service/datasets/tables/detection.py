"""Detects the type of each column of a table from all of its values: number, date, category, or not usable."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.datasets.tables.cells import MISSING, is_infinite
from service.datasets.tables.numerals import (
    NOTATIONS,
    SIGNS,
    Numerals,
    choose_notation,
    keeps_plain_values,
    looks_like_number,
)
from service.datasets.tables.values import DATES, dates, numbers
from service.wording import counted

MAX_CATEGORIES: Final = 256
MAX_TEXT: Final = 100
"""Maximum length of a category, in characters."""
_MANY_VALUES: Final = 20
"""A text column with more distinct values than this, and more than half as many as rows, is not a category."""
_MAX_INTEGERS: Final = 100_000
"""Number of values after which a column of different integers is taken for one of identifiers."""
_UNLIKELY: Final = 10
"""With this factor, integers that are all different by chance have a probability of exp(-5), below 1%."""
_KEEP: Final = "set its type to number to learn from it"
_LEADING_ZERO: Final = re.compile(r"\n(0\d+)\s*\n", re.ASCII)
_MANY_DIGITS: Final = re.compile(r"\n([+-]?\d{16,})\s*\n", re.ASCII)
_EXACT_LIMIT: Final = 2.0**53
"""From this value on, a float cannot distinguish an integer from the next one."""


class ColumnType(StrEnum):
    """The column types that a user may set."""

    NUMBER = "number"
    CATEGORY = "category"
    DATE = "date"
    IGNORE = "ignore"


Form = str | Numerals
"""A format of numbers or dates: ``number`` for plain numbers, a notation, or a name of ``DATES``."""


class ColumnScan:
    """Scans all values of a column, block by block.

    Args:
        wanted: the type that the user set; ``None`` to detect it.
        decimal_comma: whether ``3,14`` is a number.
    """

    def __init__(self, name: str, requested_type: ColumnType | None, *, decimal_comma: bool) -> None:
        self.name, self.requested_type = name, requested_type
        self._decimal_comma, self._uses_commas = decimal_comma, False
        forms: dict[ColumnType | None, list[Form]] = {
            ColumnType.NUMBER: ["number", *NOTATIONS],
            ColumnType.DATE: [*DATES],
            ColumnType.CATEGORY: [],
            None: ["number", *NOTATIONS, *DATES],
        }
        self._forms = forms[requested_type]
        """The formats that all values so far have."""
        self._is_new = True
        self._categories: dict[str, None] = {}
        self._is_text = False
        self.missing = self.rows = 0
        self._infinite = 0
        """Infinite numbers, which are missing unless the column has texts."""
        self._ranges: dict[Form, tuple[float, float]] = {}
        self._signs: set[str] = set()
        self._example = ""
        self._code: tuple[str, str] | None = None
        """A number that may be a code, and why: it has a leading zero, or more digits than a float keeps."""
        self._last: float | None = None
        self._counts_rows = True
        self._integers: set[float] | None = set()
        """The values so far, all of which are different integers; ``None`` otherwise."""

    def find_unfit(self, texts: Sequence[str]) -> list[int]:
        """The indices of the values that do not have the requested type, among those that are about to be added."""
        if any(self._matches(texts, form) for form in self._forms):
            return []
        forms, unfit = self._forms, []
        for index, text in enumerate(texts):
            if matching_forms := [form for form in forms if self._matches([text], form)]:
                forms = matching_forms
            else:
                unfit.append(index)
        return unfit

    def add(self, texts: Sequence[str]) -> None:
        """Scan a block of values."""
        values: NDArray[np.float64] | None = None
        matching_forms: list[Form] = []
        may_be_number = any(form == "number" or isinstance(form, Numerals) for form in self._forms[:1])
        text = "".join(texts) if may_be_number else ""
        signs = SIGNS.intersection(text)
        plain_values: NDArray[np.float64] | None = None
        limits: tuple[float, float] | None = None
        for form in self._forms:
            try:
                if (
                    isinstance(form, Numerals)
                    and plain_values is not None
                    and keeps_plain_values(form, signs, decimal_comma=self._decimal_comma)
                ):
                    parsed = plain_values
                elif plain_values is not None and not self._is_new and not isinstance(form, Numerals):
                    continue  # plain numbers are not dates
                else:
                    parsed = self._parse(texts, form)
            except ValueError:
                continue
            plain_values = parsed if form == "number" else plain_values
            matching_forms.append(form)
            limits = limits if parsed is values else _limits(parsed)
            if limits is not None:
                low, high = self._ranges.get(form, limits)
                self._ranges[form] = min(low, limits[0]), max(high, limits[1])
            values = parsed if values is None else values
        if self._code is None and self.requested_type is None and plain_values is not None:
            self._code = _find_code(texts, self._ranges.get("number"))
        if signs and not self._example:
            present = (text for text in map(str.strip, texts) if text not in MISSING)
            self._example = next((text for text in present if signs.intersection(text)), "")
        self._signs |= signs
        if values is None:
            stripped = [text.strip() for text in texts]
            missing = sum(text in MISSING for text in stripped)
            self._counts_rows, self._integers = False, None
        else:
            missing = int(np.isnan(values).sum())
            self._check_consecutive(values, missing)
            self._check_different(values)
            if "inf" in text.lower():
                infinite = sum(map(is_infinite, texts))
                missing, self._infinite = missing - infinite, self._infinite + infinite
        self._forms = matching_forms if missing < len(texts) else self._forms  # only missing values: keep the formats
        self._is_new = self._is_new and missing == len(texts)
        self.missing, self.rows = self.missing + missing, self.rows + len(texts)
        if len(self._categories) <= MAX_CATEGORIES and not self._is_text:
            self._categories.update(dict.fromkeys(text for text in map(str.strip, set(texts)) if text not in MISSING))
            self._is_text = any(len(text) > MAX_TEXT for text in self._categories)

    def values(self, texts: Sequence[str], column: Mapping[str, Any]) -> NDArray[np.float64]:
        """The values in their stored form. Call it after ``describe``."""
        match column["type"]:
            case ColumnType.NUMBER:
                if (notation := Numerals.of(column)) is not None:
                    return notation.numbers(texts)
                return numbers(texts, decimal_comma=self._decimal_comma)
            case ColumnType.DATE:
                return dates(texts, column["format"])
        codes = {text: float(code) for code, text in enumerate(column["categories"])}
        return np.array([codes.get(text.strip(), math.nan) for text in texts], np.float64)

    def describe(self) -> dict[str, Any] | str:
        """The description of the column, or the reason why it is ignored.

        Raises:
            ValueError: the column cannot have the requested type.
        """
        present = self.rows - self.missing
        description: dict[str, Any] = {"name": self.name, "type": ColumnType.CATEGORY.value, "missing": self.missing}
        if self.requested_type is ColumnType.CATEGORY:
            if self._is_text:
                raise ValueError(f"has values of more than {MAX_TEXT} characters, which are text, not categories")
            if len(self._categories) > MAX_CATEGORIES:
                raise ValueError(f"has more than {MAX_CATEGORIES} different values, too many for categories")
            return description | {"categories": sorted(self._categories)}
        if not present:
            return "has no values"
        if (form := self._form()) is not None:
            if form not in self._ranges:
                return "has no values"
            low, high = self._ranges[form]
            is_code = self._is_code(form)
            is_constant = len(self._categories) == 1 if is_code else low == high
            missing = self.missing + (0 if is_code else self._infinite)
            if self.requested_type is None and is_constant and not missing:
                return "has the same value in every row"
            if isinstance(form, str) and form != "number":
                return description | {"min": low, "max": high, "type": ColumnType.DATE.value, "format": form}
            if self.requested_type is None and self._counts_rows and self.rows > _MANY_VALUES:
                return "counts the rows"
            if self.requested_type is None and self._are_identifiers(high - low + 1):
                return f"has a different integer in each row, like a customer number; {_KEEP}"
            if is_code:
                return description | {"categories": sorted(self._categories)}
            description |= {"min": low, "max": high, "type": ColumnType.NUMBER.value, "missing": missing}
            if isinstance(form, Numerals):
                return description | form.narrowed(self._signs).document()
            return description | ({"decimal": ","} if self._uses_commas else {})
        count = len(self._categories)
        if self._is_text:
            return f"has texts of more than {MAX_TEXT} characters"
        if count > MAX_CATEGORIES:
            return f"has more than {MAX_CATEGORIES} different texts{self._almost_numbers()}"
        if count > _MANY_VALUES and count > present / 2:
            return f"has {count:,} different texts in {present:,} rows{self._almost_numbers()}"
        if count == 1 and not self.missing:
            return "has the same value in every row"
        return description | {"categories": sorted(self._categories)}

    def count_different(self, texts: Sequence[str]) -> int:
        """The number of different values among texts of a numeric column: ``3`` and ``3.0`` are one."""
        form = self._form()
        values = (
            form.numbers(texts) if isinstance(form, Numerals) else numbers(texts, decimal_comma=self._decimal_comma)
        )
        return len(np.unique(values[~np.isnan(values)]))

    @property
    def is_numeric(self) -> bool:
        """Whether all values so far are numbers, and none is written like a code."""
        form = self._form()
        return (form == "number" and self._code is None) or isinstance(form, Numerals)

    @property
    def notes(self) -> list[str]:
        """What the user should check: ambiguous formats, and values that count as missing."""
        form, notes = self._form(), []
        if form == "number" and self._code is not None:
            text, reason = self._code
            categories = f"{text} {reason}: its values are categories, unless you set the type number"
            too_many = (
                f"{text} {reason}, but there are too many values for categories; set the type ignore if it holds codes"
            )
            notes.append(categories if self._is_code(form) else too_many)
        elif isinstance(form, Numerals) and self._example:
            notes.append(f"{self._example} was read as the number {form.number(self._example):.15g}")
        elif len(self._forms) > 1 and "%m/%d/%Y" in self._forms:
            notes.append("dates such as 03/04/2024 were read as month/day/year")
        elif self._uses_commas and form == "number":
            notes.append("commas were read as decimal commas")
        elif form is None and self.requested_type is None and (hint := self._almost_numbers()):
            notes.append(f"its values are categories{hint}")
        if form is not None and self._infinite and not self._is_code(form):
            notes.append(f"infinite numbers count as missing, in {counted(self._infinite, 'row')}")
        return notes

    def _form(self) -> Form | None:
        """The format of the column, if its values have one."""
        notations = [form for form in self._forms if isinstance(form, Numerals)]
        if not notations or self._forms[0] == "number":
            return self._forms[0] if self._forms else None
        is_stated = self.requested_type is ColumnType.NUMBER
        return choose_notation(notations, self._signs, decimal_comma=self._decimal_comma, is_stated=is_stated)

    def _is_code(self, form: Form) -> bool:
        """Whether its numbers are categories: codes such as 00501, of which there are few."""
        count = len(self._categories)
        is_few = count <= MAX_CATEGORIES and (count <= _MANY_VALUES or count <= (self.rows - self.missing) / 2)
        return form == "number" and self._code is not None and is_few and not self._is_text

    def _almost_numbers(self) -> str:
        """A hint that most texts look like numbers."""
        non_numbers = [text for text in self._categories if not (looks_like_number(text) or is_infinite(text))]
        if len(non_numbers) >= len(self._categories) / 2:
            return ""
        if non_numbers:
            remedy = "empty such cells, or set the type number, which rejects their rows"
            return f"; most look like numbers, but {non_numbers[0][:40]!r} is none: {remedy}"
        if any(isinstance(form, Numerals) for form in self._forms):
            return f"; if {self._example} is a number, set the type number"
        return "; all look like numbers, but they are not written in the same way"

    def _parse(self, texts: Sequence[str], form: Form) -> NDArray[np.float64]:
        if isinstance(form, Numerals):
            return form.numbers(texts)
        if form != "number":
            return dates(texts, form)
        if not self._decimal_comma:
            return numbers(texts)
        values = numbers(texts, decimal_comma=True)
        self._uses_commas = self._uses_commas or any("," in text for text in texts)
        return values

    def _check_consecutive(self, values: NDArray[np.float64], missing: int) -> None:
        if missing == len(values):
            self._counts_rows = False
            return
        if self._counts_rows:  # 1, 2, 3, ..., or customer numbers 1000, 1001, 1002, ...
            previous = self._last if self._last is not None else float(values[0]) - 1
            self._counts_rows = not missing and previous.is_integer()
            with np.errstate(over="ignore"):  # the distance of two numbers may be above any float
                self._counts_rows = self._counts_rows and bool((np.diff(values, prepend=previous) == 1).all())
            self._last = float(values[-1])

    def _are_identifiers(self, span: float) -> bool:
        """Whether integers out of ``span`` are different on purpose, not by chance: by the birthday problem, a few
        amounts out of many possible ones are often different, too."""
        count = 0 if self._integers is None else len(self._integers)
        return count > _MANY_VALUES and count**2 > _UNLIKELY * span

    def _check_different(self, values: NDArray[np.float64]) -> None:
        """Check that no integer is missing or repeated, as in customer numbers; of large tables, in the first rows."""
        if self._integers is None or len(self._integers) >= _MAX_INTEGERS:
            return
        different = set(values.tolist())
        if len(different) < len(values) or not self._integers.isdisjoint(different) or (values % 1 != 0).any():
            self._integers = None
        else:
            self._integers |= different

    def _matches(self, texts: Sequence[str], form: Form) -> bool:
        try:
            self._parse(texts, form)
        except ValueError:
            return False
        return True


def _limits(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """The smallest and the largest value; ``None`` if all are missing."""
    present = values[~np.isnan(values)]
    return (float(present.min()), float(present.max())) if present.size else None


def _find_code(texts: Sequence[str], limits: tuple[float, float] | None) -> tuple[str, str] | None:
    """A number that may be a code, and the reason."""
    lines = "\n" + "\n\n".join(texts) + "\n"
    if (match := _LEADING_ZERO.search(lines)) is not None:
        return match[1][:MAX_TEXT], "has a leading zero"
    if (
        limits is not None
        and max(-limits[0], limits[1]) >= _EXACT_LIMIT
        and (match := _MANY_DIGITS.search(lines)) is not None
    ):
        return match[1][:MAX_TEXT], "has more digits than a number keeps"
    return None
