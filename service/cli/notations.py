"""Finds how a file writes the numbers of each column, which may differ from the training data: ``1.234`` is 1.234 or
1234."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from service.cli.errors import Failure
from service.cli.text import visible
from service.datasets.tables.numerals import CURRENCIES, NOTATIONS, SIGNS, Numerals, choose_notation
from service.datasets.tables.values import MISSING, number

_BATCH_SIZE: Final = 500
_SHOWN: Final = 40
"""Maximum number of characters of a cell in a message."""


@dataclass(frozen=True, slots=True)
class FileNotations:
    """How the numbers of a file are read.

    Attributes:
        by_column: the notations of columns that are not read as in training.
        notes: sentences about numbers that could be read in two ways, and are not read as in training.
    """

    by_column: Mapping[str, Numerals] = field(default_factory=dict)
    notes: Sequence[str] = ()


def find_notations(
    rows: Iterable[Sequence[str]],
    names: Sequence[str],
    columns: Iterable[Mapping[str, Any]],
    *,
    comma_is_decimal: bool,
) -> FileNotations:
    """Find the notation of each column by all rows.

    If a column can be read with a decimal point and with a decimal comma, the other columns decide: if their
    decimal sign is one of the training data, the column is read as in training; otherwise, it is read with
    that sign.

    Args:
        names: the names of the fields of a row.
        columns: the columns of the model.
        comma_is_decimal: whether a comma is a decimal sign if nothing else decides.

    Raises:
        Failure: a column that was trained with thousands separators mixes decimal points and decimal commas.
    """
    numeric = [column for column in columns if column["type"] == "number"]
    tracked = [_Column(column, names.index(column["name"])) for column in numeric if column["name"] in names]
    remaining = iter(rows)
    while tracked and (batch := list(islice(remaining, _BATCH_SIZE))):
        for column in tracked:
            column.add(cell for cell in {row[column.index].strip(): None for row in batch} if cell not in MISSING)
    return _resolve(
        [column for column in tracked if column.needs_decision],
        {column["decimal"] for column in numeric if "decimal" in column},
        comma_is_decimal=comma_is_decimal,
    )


class _Column:
    """The notations that fit the cells of a column so far; the size of the object does not depend on their
    number."""

    def __init__(self, column: Mapping[str, Any], index: int) -> None:
        self.name, self.index = str(column["name"]), index
        self.signs: set[str] = set()
        self.example = ""
        """A cell with a sign; one that can be read with one decimal sign only, if there is one."""
        self.fits_training = True
        percent = bool(column.get("percent"))
        self.notations = self._candidates = [notation for notation in NOTATIONS if notation.percent == percent]
        self._decimals = {notation.decimal for notation in self.notations}
        self._is_plain = False
        self._currency = str(column.get("currency", ""))
        self._trained_notation = Numerals.of(column)
        self._uses_comma = column.get("decimal") == ","

    def add(self, cells: Iterable[str]) -> None:
        """Narrow the notations. Cells that fit none are left for the service to refuse.

        Raises:
            Failure: see ``find_notations``.
        """
        for cell in cells:
            if self._is_plain and cell.isascii() and cell.isdecimal():
                continue  # whole numbers are written alike
            notations = [notation for notation in self.notations if _fits(cell, notation.number)]
            notations = notations or [notation for notation in self._candidates if _fits(cell, notation.number)]
            if not notations:
                self.signs.update(set(CURRENCIES).intersection(cell))
                continue
            decimals = {notation.decimal for notation in notations}
            if not self._decimals & decimals and self._trained_notation is not None:
                raise Failure(
                    f"column {visible(repr(self.name))} has decimal points and decimal commas, such as "
                    f"{visible(self.example[:_SHOWN])} and {visible(cell[:_SHOWN])}: write all in the same way"
                )
            if self.fits_training:
                self.fits_training = _fits(cell, self._read)
            if signs := SIGNS.intersection(cell):
                is_clearer = len(decimals) < 2 <= len(self._decimals)
                self.example = cell if is_clearer or not self.example else self.example
                self.signs |= signs
            self.notations = [notation for notation in self.notations if notation in notations]
            self._decimals &= decimals
            self._is_plain = not any(notation.percent or notation.currency for notation in self.notations)

    @property
    def needs_decision(self) -> bool:
        """False if it has whole numbers only, which are written alike, or another currency, which the service
        refuses.
        """
        return bool(self.signs and self.notations) and not set(CURRENCIES) & self.signs - {self._currency}

    @property
    def decimals(self) -> set[str]:
        """The decimal signs with which all cells can be read."""
        return {notation.decimal for notation in self.notations}

    @property
    def trained_decimal(self) -> str:
        """The decimal sign with which the cells are read as in training."""
        if self._trained_notation is not None:
            return self._trained_notation.decimal
        return "," if "," in self.signs else "."

    def _read(self, cell: str) -> float:
        return (
            self._trained_notation.number(cell)
            if self._trained_notation
            else number(cell, decimal_comma=self._uses_comma)
        )


def _resolve(columns: Sequence[_Column], stated: Collection[str], *, comma_is_decimal: bool) -> FileNotations:
    """Decide for all columns.

    Args:
        stated: decimal signs that are certain for the training data; a column of whole numbers states none.
    """
    unambiguous = {column.name: column for column in columns if len(column.decimals) == 1}
    file_decimals = set[str]().union(*(column.decimals for column in unambiguous.values()))
    notations, notes = {}, []
    for column in columns:
        matching_file = [notation for notation in column.notations if {notation.decimal} == file_decimals]
        is_as_trained = not matching_file or {column.trained_decimal} == file_decimals or file_decimals <= set(stated)
        if column.fits_training and is_as_trained:
            continue
        choice = choose_notation(
            matching_file or column.notations, column.signs, decimal_comma=comma_is_decimal, is_stated=True
        )
        if choice is None:
            continue
        notations[column.name] = choice
        if column.name not in unambiguous:
            note = f"column {column.name!r}: {column.example[:_SHOWN]} is read as {choice.number(column.example):.15g}"
            if matching_file:
                reference = next(iter(unambiguous.values()))
                note += f", since column {reference.name!r} has {reference.example[:_SHOWN]}"
            notes.append(note)
    return FileNotations(notations, notes)


def _fits(cell: str, parse: Callable[[str], float]) -> bool:
    with suppress(ValueError):
        parse(cell)
        return True
    return False
