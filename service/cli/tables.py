"""Prediction of the rows of a CSV file, and its output as CSV in the format of the input: delimiter, encoding, decimal
sign."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO

from service.cli.errors import Failure
from service.datasets.errors import DatasetBroken
from service.datasets.formats.delimited import DelimitedFile, open_delimited
from service.datasets.tables.numerals import decimal_sign

SUFFIXES: Final = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_BATCH_SIZE: Final = 500
_MAX_BYTES: Final = 2**40

_MARKED_UTF8: Final = "utf-8-sig"

Open = Callable[[str], TextIO]
"""Opens the output for text in an encoding."""
Predict = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]]
"""Sends rows (column to value) to the service; returns its response."""


def is_table(path: Path) -> bool:
    """Whether a file name has the suffix of a table."""
    return path.name.lower().endswith(SUFFIXES)


def predict(path: Path, output: Open, ask: Predict, *, decimal: str = ".") -> Mapping[str, Any]:
    """Write the rows of a file with predictions and probabilities appended; returns the totals of the responses.

    Args:
        decimal: the decimal sign if the file shows none.

    Raises:
        Failure: the file cannot be read; it names the line.
    """
    try:
        table = open_delimited(path, max_bytes=_MAX_BYTES).check()
        return _predict(table, output, ask, decimal)
    except DatasetBroken as error:
        raise Failure(f"{path}: {error.reason}") from error
    except OSError as error:
        raise Failure(f"{path}: {error.strerror or error}") from error


def _predict(table: DelimitedFile, output: Open, ask: Predict, decimal: str) -> Mapping[str, Any]:
    total: dict[str, Any] = {
        "rows": 0,
        "unknown_values": 0,
        "unknown_categories": {},
        "absent_columns": {},
        "checkpoint": None,
    }
    read = _rows(table)
    while rows := list(islice(read, _BATCH_SIZE)):
        answer = ask([dict(zip(table.header, row, strict=True)) for row in rows])
        names = answer["class_names"]
        if not total["rows"]:
            decimal = _decimal(table.delimiter, rows, decimal)
            file = output(_encoding(table.encoding, names))
            writer = csv.writer(file, delimiter=table.delimiter, lineterminator="\n")
            writer.writerow([*table.header, "prediction", "probability", *(f"probability of {name}" for name in names)])
        for row, number, shares in zip(rows, answer["classes"], answer["probabilities"], strict=True):
            numbers = (f"{share:.6g}".replace(".", decimal) for share in (shares[number], *shares))
            writer.writerow([*row, names[number], *numbers])
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
    return total


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


def _rows(table: DelimitedFile) -> Iterator[list[str]]:
    if len(set(table.header)) < len(table.header):
        raise Failure(f"{table.path}: two columns have the same name")
    for line, fields in table.rows():
        if isinstance(fields, str):
            raise Failure(f"{table.path}: line {line:,} {fields}")
        if len(fields) != len(table.header):
            raise Failure(f"{table.path}: line {line:,} has {len(fields)} fields instead of {len(table.header)}")
        yield fields
