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
from service.datasets.tables.numerals import CURRENCIES, NOTATIONS, SIGNS, Numerals, chosen
from service.datasets.tables.values import MISSING, number

_BATCH_SIZE: Final = 500
_SHOWN: Final = 40


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

    If a column can be read with a decimal point and with a decimal comma, the other columns decide: if the decimal sign
    that they have is one of the training data, the column is read as in training; otherwise with that sign.

    Args:
        names: those of the fields of a row.
        columns: those of the model.
        comma_is_decimal: whether a comma may be a decimal sign where nothing decides.

    Raises:
        Failure: a column that was trained with thousands separators mixes decimal points and decimal commas.
    """
    numeric = [column for column in columns if column["type"] == "number"]
    found = [_Column(column, names.index(column["name"])) for column in numeric if column["name"] in names]
    remaining = iter(rows)
    while found and (some := list(islice(remaining, _BATCH_SIZE))):
        for one in found:
            one.add(cell for cell in {row[one.place].strip(): None for row in some} if cell not in MISSING)
    return _resolved(
        [one for one in found if one.is_in_question],
        {column["decimal"] for column in numeric if "decimal" in column},
        comma_is_decimal=comma_is_decimal,
    )


class _Column:
    """What the cells so far say about a column; its size does not depend on their number."""

    def __init__(self, about: Mapping[str, Any], place: int) -> None:
        self.name, self.place = str(about["name"]), place
        self.signs: set[str] = set()
        self.example = ""
        """A cell with a sign; one that can be read with one decimal sign only, if there is one."""
        self.fits_training = True
        percent = bool(about.get("percent"))
        self.forms = self._possible = [form for form in NOTATIONS if form.percent == percent]
        self._decimals = {form.decimal for form in self.forms}
        self._is_plain = False
        self._currency = str(about.get("currency", ""))
        self._notation = Numerals.of(about)
        self._takes_comma = about.get("decimal") == ","

    def add(self, cells: Iterable[str]) -> None:
        """Narrow the notations. Cells that fit none are left for the service to refuse.

        Raises:
            Failure: see ``find_notations``.
        """
        for cell in cells:
            if self._is_plain and cell.isascii() and cell.isdecimal():
                continue  # whole numbers are written alike
            forms = [form for form in self.forms if _fits(cell, form.number)]
            forms = forms or [form for form in self._possible if _fits(cell, form.number)]
            if not forms:
                self.signs.update(set(CURRENCIES).intersection(cell))
                continue
            decimals = {form.decimal for form in forms}
            if not self._decimals & decimals and self._notation is not None:
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
            self.forms = [form for form in self.forms if form in forms]
            self._decimals &= decimals
            self._is_plain = not any(form.percent or form.currency for form in self.forms)

    @property
    def is_in_question(self) -> bool:
        """Not if it has whole numbers only, which are written alike, or another currency, which the service refuses."""
        return bool(self.signs and self.forms) and not set(CURRENCIES) & self.signs - {self._currency}

    @property
    def decimals(self) -> set[str]:
        """The decimal signs with which all cells can be read."""
        return {form.decimal for form in self.forms}

    @property
    def trained_decimal(self) -> str:
        """The decimal sign with which the cells are read as in training."""
        if self._notation is not None:
            return self._notation.decimal
        return "," if "," in self.signs else "."

    def _read(self, cell: str) -> float:
        return self._notation.number(cell) if self._notation else number(cell, decimal_comma=self._takes_comma)


def _resolved(columns: Sequence[_Column], stated: Collection[str], *, comma_is_decimal: bool) -> FileNotations:
    """Decide for all columns.

    Args:
        stated: decimal signs that the training data certainly have; a column of whole numbers states none.
    """
    clear = {column.name: column for column in columns if len(column.decimals) == 1}
    of_file = set[str]().union(*(column.decimals for column in clear.values()))
    notations, notes = {}, []
    for column in columns:
        like_others = [form for form in column.forms if {form.decimal} == of_file]
        is_as_trained = not like_others or {column.trained_decimal} == of_file or of_file <= set(stated)
        if column.fits_training and is_as_trained:
            continue
        form = chosen(like_others or column.forms, column.signs, decimal_comma=comma_is_decimal, is_stated=True)
        if form is None:
            continue
        notations[column.name] = form
        if column.name not in clear:
            note = f"column {column.name!r}: {column.example[:_SHOWN]} is read as {form.number(column.example):.15g}"
            if like_others:
                other = next(iter(clear.values()))
                note += f", since column {other.name!r} has {other.example[:_SHOWN]}"
            notes.append(note)
    return FileNotations(notations, notes)


def _fits(cell: str, parse: Callable[[str], float]) -> bool:
    with suppress(ValueError):
        parse(cell)
        return True
    return False
