"""Prediction of the rows of a CSV file, and its output as CSV in the format of the input.

The file may write the numbers of each column in another way than the training data: ``1.234`` is 1.234 or 1234.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO

from rapidfuzz import fuzz, process

from service.cli.target import Failure
from service.cli.text import visible
from service.datasets.errors import DatasetBroken
from service.datasets.formats.delimited import DelimitedFile, open_delimited
from service.datasets.tables.numerals import CURRENCIES, NOTATIONS, SIGNS, Numerals, choose_notation, decimal_sign
from service.datasets.tables.values import MISSING, number

_BATCH_SIZE: Final = 500
_MAX_BYTES: Final = 2**40
_MIN_SIMILARITY: Final = 75
"""Minimum similarity, out of 100, at which an unknown column counts as misspelt."""
_MAX_SHOWN_NAMES: Final = 20

_UTF8_WITH_BOM: Final = "utf-8-sig"

Open = Callable[[str], TextIO]
"""Opens the output for text in an encoding."""
Predict = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]]
"""Sends rows (column to value) to the service; returns its response."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelColumns:
    """The columns of a trained model.

    Attributes:
        inputs: the columns of its preprocessing.
        unused: names of columns of the dataset that the model does not use, such as the target.
    """

    inputs: Sequence[Mapping[str, Any]]
    unused: Collection[str] = ()

    @property
    def decimal(self) -> str:
        """The decimal sign of the training data."""
        return "," if any(column.get("decimal") == "," for column in self.inputs) else "."


def predict(
    path: Path, output: Open | None, predict_rows: Predict, model: ModelColumns | None = None
) -> Mapping[str, Any]:
    """Write the rows of a file with predictions and probabilities appended; returns the totals of the responses.

    Columns that the model does not have are copied, not sent. Numbers are read in the notation of the whole
    file, which may differ from that of the training data; ``notes`` of the totals lists those that could be
    read in two ways.

    Args:
        output: if ``None``, the predictions are returned with the totals instead of written.
        model: without it, all columns are sent as they are.

    Raises:
        Failure: the file cannot be read, in which case the message names the line, or its columns are not
            those of the model.
    """
    try:
        table = open_delimited(path, max_bytes=_MAX_BYTES).check()
        return _predict(table, output, predict_rows, model)
    except DatasetBroken as error:
        raise Failure(f"{path}: {error.reason}") from error
    except OSError as error:
        raise Failure(f"{path}: {error.strerror or error}") from error


def _predict(
    table: DelimitedFile, output: Open | None, predict_rows: Predict, model: ModelColumns | None
) -> Mapping[str, Any]:
    totals: dict[str, Any] = {
        "rows": 0,
        "unknown_values": 0,
        "unknown_categories": {},
        "absent_columns": {},
        "unused_columns": [],
        "checkpoint": None,
        "notes": [],
    }
    names = _column_names(table)
    sent_names, decimal = set(names), "."
    notations: Mapping[str, Numerals] = {}
    if model is not None:
        sent_names, totals["unused_columns"] = _columns_to_send(table.path, names, model)
        decimal = model.decimal
        notations, totals["notes"] = find_notations(
            _rows(table), names, model.inputs, comma_is_decimal=table.delimiter != ","
        )
    predictions: dict[str, list[Any]] = {"classes": [], "probabilities": []}
    remaining_rows = _rows(table)
    while rows := list(islice(remaining_rows, _BATCH_SIZE)):
        response = predict_rows(
            [
                {
                    name: _value_to_send(cell, notations.get(name))
                    for name, cell in zip(names, row, strict=True)
                    if name in sent_names
                }
                for row in rows
            ]
        )
        classes = response["class_names"]
        if output is None:
            for name, values in predictions.items():
                values += response[name]
        else:
            if not totals["rows"]:
                decimal = _output_decimal(table.delimiter, rows, decimal)
                file = output(_output_encoding(table.encoding, classes))
                writer = csv.writer(file, delimiter=table.delimiter, lineterminator="\n")
                writer.writerow([*table.header, *_new_names(table.header, classes)])
            for row, class_index, probabilities in zip(
                rows, response["classes"], response["probabilities"], strict=True
            ):
                numbers = (
                    f"{probability:.6g}".replace(".", decimal)
                    for probability in (probabilities[class_index], *probabilities)
                )
                writer.writerow([*row, classes[class_index], *numbers])
        totals["rows"] += len(rows)
        for item in response.get("unknown_values") or ():
            totals["unknown_values"] += 1
            totals["unknown_categories"].setdefault(item["column"], {}).setdefault(item["value"], None)
        for name, count in (response.get("absent_columns") or {}).items():
            totals["absent_columns"][name] = totals["absent_columns"].get(name, 0) + count
        totals["checkpoint"] = response["checkpoint"]
    if not totals["rows"]:
        raise Failure(f"{table.path}: has a header, but no rows")
    totals["unknown_categories"] = {name: list(values) for name, values in totals["unknown_categories"].items()}
    return totals if output is not None else totals | {"class_names": list(classes), **predictions}


def _column_names(table: DelimitedFile) -> list[str]:
    """The names of the columns; as in an upload, a column without a name is named by its number."""
    names = [name or f"column_{index}" for index, name in enumerate(table.header, 1)]
    if len(set(names)) < len(names):
        duplicate = next(name for name in names if names.count(name) > 1)
        raise Failure(f"{table.path}: two columns have the same name, {visible(repr(duplicate))}")
    return names


def _columns_to_send(path: Path, names: Sequence[str], model: ModelColumns) -> tuple[set[str], list[str]]:
    """The columns to send, and the unknown ones.

    Raises:
        Failure: no column is one of the model, or some look misspelt; the message has a line for each of
            these.
    """
    inputs = [str(column["name"]) for column in model.inputs]
    sent_names = set(inputs) & set(names)
    absent = [name for name in inputs if name not in sent_names]
    unknown = [name for name in names if name not in sent_names and name not in model.unused]
    misspelt = []
    for name in unknown:
        match = process.extractOne(name, absent, scorer=fuzz.ratio, score_cutoff=_MIN_SIMILARITY, processor=str.lower)
        if match is not None:
            misspelt.append(f"column {visible(repr(name))} is unknown; did you mean {visible(repr(match[0]))}?")
    if misspelt:
        raise Failure("\n  ".join([f"{path}: rename these columns, or remove them:", *misspelt[:_MAX_SHOWN_NAMES]]))
    if not sent_names:
        raise Failure(
            f"{path}: has none of the columns of the model: {_list_names(inputs)}; line 1 must have the names of the "
            f"columns, and has {_list_names(names)}"
        )
    return sent_names, unknown


def _list_names(names: Sequence[str]) -> str:
    shown = visible(", ".join(map(repr, names[:_MAX_SHOWN_NAMES])))
    return f"{shown} and {len(names) - _MAX_SHOWN_NAMES:,} more" if len(names) > _MAX_SHOWN_NAMES else shown


def _new_names(header: Collection[str], classes: Sequence[str]) -> list[str]:
    """The names of the appended columns, all with the same number if one of them is in the header already."""
    base_names = ["prediction", "probability", *(f"probability of {name}" for name in classes)]
    names, number = base_names, 1
    while set(names) & set(header):
        number += 1
        names = [f"{name} ({number})" for name in base_names]
    return names


def _value_to_send(cell: str, notation: Numerals | None) -> str | float:
    """The value to send for a cell: its number by the notation of the file, or else the text, for the service
    to read.
    """
    if notation is not None:
        with suppress(ValueError):
            return notation.number(cell.strip())
    return cell


def _output_decimal(delimiter: str, rows: Sequence[Sequence[str]], default: str) -> str:
    """The decimal sign of the first rows. Between commas, numbers are written with points."""
    if delimiter == ",":
        return "."
    return decimal_sign([cell.strip() for row in rows for cell in row], default=default)


def _output_encoding(encoding: str, names: Sequence[str]) -> str:
    """The encoding of the input, or UTF-8 with a byte order mark if it cannot represent a class name."""
    try:
        "".join(names).encode(encoding)
    except UnicodeEncodeError:
        return _UTF8_WITH_BOM
    return encoding


def line_of(path: Path, index: int) -> int:
    """The line of a row in its file: quoted cells may have several lines."""
    table = open_delimited(path, max_bytes=_MAX_BYTES).check()
    return next(line for line, _ in islice(table.rows(), index, None))


def _rows(table: DelimitedFile) -> Iterator[list[str]]:
    for line, fields in table.rows():
        if isinstance(fields, str):
            raise Failure(f"{table.path}: line {line:,} {fields}")
        if len(fields) != len(table.header):
            raise Failure(f"{table.path}: line {line:,} has {len(fields)} fields instead of {len(table.header)}")
        yield fields


_SHOWN: Final = 40
"""Maximum number of characters of a cell in a message."""


def find_notations(
    rows: Iterable[Sequence[str]],
    names: Sequence[str],
    columns: Iterable[Mapping[str, Any]],
    *,
    comma_is_decimal: bool,
) -> tuple[dict[str, Numerals], list[str]]:
    """Find the notation of each column by all rows: of those that are not read as in training, with sentences about
    numbers that could be read in two ways.

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


def _resolve(
    columns: Sequence[_Column], stated: Collection[str], *, comma_is_decimal: bool
) -> tuple[dict[str, Numerals], list[str]]:
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
    return notations, notes


def _fits(cell: str, parse: Callable[[str], float]) -> bool:
    with suppress(ValueError):
        parse(cell)
        return True
    return False
