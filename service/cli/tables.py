"""Prediction of the rows of a CSV file, and its output as CSV in the format of the input: delimiter, encoding, decimal
sign."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO

from rapidfuzz import fuzz, process

from service.cli.errors import Failure
from service.cli.notations import FileNotations, find_notations
from service.cli.text import visible
from service.datasets.errors import DatasetBroken
from service.datasets.formats.delimited import DelimitedFile, open_delimited
from service.datasets.tables.numerals import Numerals, decimal_sign

_BATCH_SIZE: Final = 500
_MAX_BYTES: Final = 2**40
_ALIKE: Final = 75
"""Similarity, of 100, from which on an unknown column counts as a misspelt one."""
_SHOWN_NAMES: Final = 20

_MARKED_UTF8: Final = "utf-8-sig"

Open = Callable[[str], TextIO]
"""Opens the output for text in an encoding."""
Predict = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]]
"""Sends rows (column to value) to the service; returns its response."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelColumns:
    """The columns of a trained model.

    Attributes:
        inputs: those of its preprocessing.
        others: names of columns of the dataset that the model does not use, such as the target.
    """

    inputs: Sequence[Mapping[str, Any]]
    others: Collection[str] = ()

    @property
    def decimal(self) -> str:
        """The decimal sign of the training data."""
        return "," if any(column.get("decimal") == "," for column in self.inputs) else "."


def predict(path: Path, output: Open | None, ask: Predict, model: ModelColumns | None = None) -> Mapping[str, Any]:
    """Write the rows of a file with predictions and probabilities appended; returns the totals of the responses.

    Columns that the model does not have are copied, not sent. Numbers are read as the whole file writes them, whose
    notation may differ from that of the training data. ``notes`` of the totals has what could be read in two ways.

    Args:
        output: ``None`` returns the predictions with the totals, instead of writing them.
        model: without it, all columns are sent as they are.

    Raises:
        Failure: the file cannot be read; it names the line. Or its columns are not those of the model.
    """
    try:
        table = open_delimited(path, max_bytes=_MAX_BYTES).check()
        return _predict(table, output, ask, model)
    except DatasetBroken as error:
        raise Failure(f"{path}: {error.reason}") from error
    except OSError as error:
        raise Failure(f"{path}: {error.strerror or error}") from error


def _predict(table: DelimitedFile, output: Open | None, ask: Predict, model: ModelColumns | None) -> Mapping[str, Any]:
    total: dict[str, Any] = {
        "rows": 0,
        "unknown_values": 0,
        "unknown_categories": {},
        "absent_columns": {},
        "unused_columns": [],
        "checkpoint": None,
    }
    names = _names(table)
    used = set(names)
    if model is not None:
        used, total["unused_columns"] = _used(table.path, names, model)
    found: dict[str, list[Any]] = {"classes": [], "probabilities": []}
    decimal = model.decimal if model is not None else "."
    found_notations = FileNotations()
    if model is not None:
        comma_is_decimal = table.delimiter != ","
        found_notations = find_notations(_rows(table), names, model.inputs, comma_is_decimal=comma_is_decimal)
    notations, total["notes"] = found_notations.by_column, list(found_notations.notes)
    read = _rows(table)
    while rows := list(islice(read, _BATCH_SIZE)):
        answer = ask(
            [
                {name: _value(cell, notations.get(name)) for name, cell in zip(names, row, strict=True) if name in used}
                for row in rows
            ]
        )
        classes = answer["class_names"]
        if output is None:
            for field, values in found.items():
                values += answer[field]
        else:
            if not total["rows"]:
                decimal = _decimal(table.delimiter, rows, decimal)
                file = output(_encoding(table.encoding, classes))
                writer = csv.writer(file, delimiter=table.delimiter, lineterminator="\n")
                writer.writerow([*table.header, *_new_names(table.header, classes)])
            for row, place, shares in zip(rows, answer["classes"], answer["probabilities"], strict=True):
                numbers = (f"{probability:.6g}".replace(".", decimal) for probability in (shares[place], *shares))
                writer.writerow([*row, classes[place], *numbers])
        total["rows"] += len(rows)
        total["unknown_values"] += len(answer.get("unknown_values") or ())
        for one in answer.get("unknown_values") or ():
            total["unknown_categories"].setdefault(one["column"], {}).setdefault(one["value"], None)
        for name, count in (answer.get("absent_columns") or {}).items():
            total["absent_columns"][name] = total["absent_columns"].get(name, 0) + count
        total["checkpoint"] = answer["checkpoint"]
    if not total["rows"]:
        raise Failure(f"{table.path}: has a header, but no rows")
    total["unknown_categories"] = {name: list(values) for name, values in total["unknown_categories"].items()}
    return total if output is not None else total | {"class_names": list(classes), **found}


def _names(table: DelimitedFile) -> list[str]:
    """The names of the columns; as in an upload, one without a name is called by its number."""
    names = [name or f"column_{place}" for place, name in enumerate(table.header, 1)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise Failure(f"{table.path}: two columns have the same name, {visible(repr(twice))}")
    return names


def _used(path: Path, names: Sequence[str], model: ModelColumns) -> tuple[set[str], list[str]]:
    """The columns to send, and those that are not known.

    Raises:
        Failure: no column is one of the model, or some look like misspelt ones; a line each.
    """
    inputs = [str(column["name"]) for column in model.inputs]
    used = set(inputs) & set(names)
    absent = [name for name in inputs if name not in used]
    unknown = [name for name in names if name not in used and name not in model.others]
    misspelt = []
    for name in unknown:
        meant = process.extractOne(name, absent, scorer=fuzz.ratio, score_cutoff=_ALIKE, processor=str.lower)
        if meant is not None:
            misspelt.append(f"column {visible(repr(name))} is unknown; did you mean {visible(repr(meant[0]))}?")
    if misspelt:
        raise Failure("\n  ".join([f"{path}: rename these columns, or remove them:", *misspelt[:_SHOWN_NAMES]]))
    if not used:
        raise Failure(
            f"{path}: has none of the columns of the model: {_listed(inputs)}; line 1 must have the names of the "
            f"columns, and has {_listed(names)}"
        )
    return used, unknown


def _listed(names: Sequence[str]) -> str:
    shown = visible(", ".join(map(repr, names[:_SHOWN_NAMES])))
    return f"{shown} and {len(names) - _SHOWN_NAMES:,} more" if len(names) > _SHOWN_NAMES else shown


def _new_names(header: Collection[str], classes: Sequence[str]) -> list[str]:
    """The names of the appended columns, all with the same number where one of them would be there twice."""
    plain = ["prediction", "probability", *(f"probability of {name}" for name in classes)]
    names, count = plain, 1
    while set(names) & set(header):
        count += 1
        names = [f"{name} ({count})" for name in plain]
    return names


def _value(cell: str, notation: Numerals | None) -> str | float:
    """What is sent for a cell: its number by the notation of the file; otherwise the text, for the service to read."""
    if notation is not None:
        with suppress(ValueError):
            return notation.number(cell.strip())
    return cell


def _decimal(delimiter: str, rows: Sequence[Sequence[str]], default: str) -> str:
    """The decimal sign of the first rows. Between commas, numbers are written with points."""
    if delimiter == ",":
        return "."
    return decimal_sign([cell.strip() for row in rows for cell in row], default=default)


def _encoding(encoding: str, names: Sequence[str]) -> str:
    """The encoding of the input, or UTF-8 with its mark if a class name does not fit."""
    try:
        "".join(names).encode(encoding)
    except UnicodeEncodeError:
        return _MARKED_UTF8
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
