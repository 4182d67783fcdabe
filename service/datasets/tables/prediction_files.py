"""The rows of a CSV file for prediction, and the same file with the predictions added.

Both functions run in the sandbox. ``prepare`` reads the file, and writes the inputs of the network and a copy of the
rows; ``write`` completes the copy with the results. The file may write the numbers of each column in another way than
the training data: ``1.234`` is 1.234 or 1234.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np
from numpy.typing import NDArray

from service.datasets.errors import DatasetError, closest, quoted
from service.datasets.formats.delimited import DelimitedFile, open_delimited
from service.datasets.importer import MAX_UNPACKED_BYTES
from service.datasets.tables.cells import MISSING, number
from service.datasets.tables.importing import MAX_ROWS
from service.datasets.tables.numerals import CURRENCIES, NOTATIONS, SIGNS, Numerals, choose_notation, decimal_sign
from service.datasets.tables.rows import missing_notes, missing_values, read_rows
from service.errors import Fault
from service.spec.strict_json import pointer_step
from service.wording import counted

ROWS, INPUTS, COPY = "rows", "inputs", "copy"
"""Files of a folder: as received, float64 (rows, columns), and the rows for ``write``."""
CLASSES, PROBABILITIES, OUTPUT = "classes", "probabilities", "output"
"""Files of a folder: int64 (rows,), float64 (rows, classes), and the result. Those of a regressor: empty, and float64
(rows,)."""
MAX_NUMBERS: Final = 2**25
"""Maximum number of inputs, rows times columns of the model: a small file may stand for many."""
BLOCK_ROWS: Final = 50_000
"""Rows that are predicted and written at a time."""
_BATCH_SIZE: Final = 500
_MIN_SIMILARITY: Final = 75
"""Minimum similarity, out of 100, at which an unknown column counts as misspelt."""
_MAX_NAMED: Final = 10
"""Maximum number of columns, and of unknown categories of a column, that a note names."""
_MAX_COLUMNS: Final = 10_000
_MAX_LISTED: Final = 1000
"""Maximum number of unknown values that are listed."""
_MAX_CATEGORIES: Final = 100
"""Maximum number of unknown categories of a column that are listed."""
_MAX_TRACKED: Final = 10_000
"""Maximum number of different unknown categories of a column that are counted."""
_REPEATED: Final = " (and further lines)"
_UTF8_WITH_BOM: Final = "utf-8-sig"
_CHARSETS: Final = {"cp1252": "windows-1252", "latin-1": "iso-8859-1", _UTF8_WITH_BOM: "utf-8"}

Batch = tuple[NDArray[np.int64], NDArray[Any]]
"""Classes (n,) and probabilities (n, classes) of the next rows; of a regressor, none and the values (n,)."""


class RowsRefused(DatasetError, ValueError):
    """The file is not a table with rows for this model."""

    code = "invalid_input"

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(fault.detail for fault in faults))
        self.faults = tuple(faults)


@dataclass(kw_only=True)
class PreparedFile:
    """A file that was read.

    Attributes:
        summary: what was found in it, as the API returns it.
        listed: the first unknown values: row, column, value.
    """

    delimiter: str
    decimal: str
    encoding: str
    summary: dict[str, Any]
    listed: list[tuple[int, str, str]]

    @property
    def media_type(self) -> str:
        """The media type of the file with predictions."""
        return f"text/csv; charset={_CHARSETS.get(self.encoding, self.encoding)}"


def prepare(
    folder: Path, *, columns: Sequence[Mapping[str, Any]], unused: Collection[str], class_names: Sequence[str]
) -> PreparedFile:
    """Read the file ``ROWS`` of a folder, and write into it the inputs and a copy of the rows.

    Columns that the model does not have are copied only. Numbers are read in the notation of the whole file, which may
    differ from that of the training data.

    Args:
        columns: of the preprocessing.
        unused: names of columns of the dataset that the model does not use, such as the target.
        class_names: of a classifier; empty for a regressor.

    Raises:
        DatasetBroken: the file cannot be read.
        RowsRefused: it does not fit the model. A row is named by its line.
    """
    table = open_delimited(folder / ROWS, max_bytes=MAX_UNPACKED_BYTES, max_rows=MAX_ROWS).check()
    names = table.header
    if len(names) > _MAX_COLUMNS:
        raise _refused(f"has {len(names):,} columns; at most {_MAX_COLUMNS:,} are read")
    (name, count), *_ = Counter(names).most_common(1)
    if count > 1:
        raise _refused(f"two columns have the same name, {name!r}")
    unused_columns = _check_columns(names, columns, unused)
    notations, notes = find_notations(
        (row for _, row in _rows(table)), names, columns, comma_is_decimal=table.delimiter != ","
    )
    decimal = "," if any(column.get("decimal") == "," for column in columns) else "."
    own_names = {column["name"] for column in columns}
    faults: dict[str | None, Fault] = {}
    listed: list[tuple[int, str, str]] = []
    count = unknown_values = 0
    unknown: dict[str, dict[str, None]] = {}
    missing: Counter[str] = Counter()
    remaining = _rows(table)
    with (folder / INPUTS).open("wb") as inputs, (folder / COPY).open("w", encoding="utf-8", newline="") as copy:
        writer = csv.writer(copy, delimiter=table.delimiter)
        writer.writerow([*names, *added_names(names, class_names)])
        while batch := list(islice(remaining, _BATCH_SIZE)):
            if not count:
                decimal = _output_decimal(table.delimiter, [row for _, row in batch], decimal)
            rows = [
                {
                    name: _parse(cell, notations.get(name))
                    for name, cell in zip(names, row, strict=True)
                    if name in own_names
                }
                for _, row in batch
            ]
            result = read_rows(rows, columns, ignored=())
            for index, column, detail, _ in result.faults:
                pointer = f"#/rows/{count + index}/{pointer_step(column or '')}"
                detail = f"line {batch[index][0]:,}: {column!r} {detail}"
                first = faults.setdefault(column, Fault(pointer=pointer, detail=detail, code="wrong_type"))
                if first.pointer != pointer and not first.detail.endswith(_REPEATED):
                    faults[column] = replace(first, detail=first.detail + _REPEATED)
            if (count + len(batch)) * len(columns) > MAX_NUMBERS:
                detail = f"has more than {MAX_NUMBERS // len(columns):,} rows for the {counted(len(columns), 'column')}"
                raise _refused(f"{detail} of the model: send it in parts", code="out_of_range")
            inputs.write(result.inputs.tobytes())
            writer.writerows(row for _, row in batch)
            for index, column, value in result.unknown:
                if len(listed) < _MAX_LISTED:
                    listed.append((count + index, column, value))
                if len(known := unknown.setdefault(column, {})) < _MAX_TRACKED:
                    known[value] = None
            unknown_values += len(result.unknown)
            missing += missing_values(result, columns)
            count += len(batch)
    if faults:
        raise RowsRefused(list(faults.values()))
    if not count:
        raise _refused("has a header, but no rows")
    absent = [str(column["name"]) for column in columns if column["name"] not in names]
    return PreparedFile(
        delimiter=table.delimiter,
        decimal=decimal,
        encoding=_output_encoding(table.encoding, class_names),
        listed=listed,
        summary={
            "rows": count,
            "unknown_values": unknown_values,
            "unknown_categories": {name: list(values)[:_MAX_CATEGORIES] for name, values in unknown.items()},
            "absent_columns": dict.fromkeys(absent, count),
            "missing_values": dict(missing),
            "unused_columns": unused_columns,
            "notes": [
                *notes,
                *_notes(count, unused_columns, absent, unknown, unknown_values),
                *missing_notes(missing),
            ],
        },
    )


def write(folder: Path, prepared: PreparedFile, class_names: Sequence[str], *, as_csv: bool) -> None:
    """Write the file ``OUTPUT`` of a folder: the rows with their predictions, or the beginning of a JSON object with
    the probabilities and classes."""
    classes, count = np.fromfile(folder / CLASSES, np.int64), prepared.summary["rows"]
    shape = (count, len(class_names)) if class_names else (count,)
    probabilities = np.memmap(folder / PROBABILITIES, np.float64, "r", shape=shape)
    starts = range(0, count, BLOCK_ROWS)
    batches = ((classes[start : start + BLOCK_ROWS], probabilities[start : start + BLOCK_ROWS]) for start in starts)
    encoding = prepared.encoding if as_csv else "utf-8"
    with (folder / OUTPUT).open("w", encoding=encoding, newline="") as file:
        if as_csv:
            with (folder / COPY).open(encoding="utf-8", newline="") as copy:
                _write_rows(file, prepared, copy, class_names, batches)
        else:
            _write_json(file, batches, "probabilities" if class_names else "values")


def _write_json(file: TextIO, batches: Iterable[Batch], field: str) -> None:
    """Block by block: as one object, those of a large file would fill the memory."""
    all_classes: list[int] = []
    separator = f'{{"{field}": ['
    for classes, results in batches:
        file.write(separator + json.dumps(results.tolist())[1:-1])
        all_classes += classes.tolist()
        separator = ", "
    probabilities = "" if field == "probabilities" else '"probabilities": [], '
    file.write(f'], {probabilities}"classes": {json.dumps(all_classes)}, ')


def _write_rows(
    file: TextIO, prepared: PreparedFile, copy: TextIO, class_names: Sequence[str], batches: Iterable[Batch]
) -> None:
    rows = csv.reader(copy, delimiter=prepared.delimiter)
    writer = csv.writer(file, delimiter=prepared.delimiter, lineterminator="\n")
    writer.writerow(next(rows))
    for classes, results in batches:
        # The rows come last: zip takes none for a batch that has ended.
        for cells, row in zip(added_cells(classes, results, class_names, prepared.decimal), rows, strict=False):
            writer.writerow([*row, *cells])


def added_cells(
    classes: NDArray[np.int64], results: NDArray[Any], class_names: Sequence[str], decimal: str = "."
) -> Iterator[list[str]]:
    """The cells that are added to each row, under ``added_names``.

    Args:
        classes, results: see ``Batch``.
        class_names: of a classifier; empty for a regressor.
    """
    if not class_names:
        for value in results.tolist():
            yield [f"{value:.15g}".replace(".", decimal)]
        return
    for class_index, shares in zip(classes.tolist(), results.tolist(), strict=True):
        numbers = [f"{share:.6g}".replace(".", decimal) for share in (shares[class_index], *shares)]
        yield [class_names[class_index], *numbers]


def _refused(detail: str, **facts: str) -> RowsRefused:
    return RowsRefused([Fault(pointer="#", detail=detail, **{"code": "invalid_value", **facts})])


def _check_columns(names: Sequence[str], columns: Sequence[Mapping[str, Any]], unused: Collection[str]) -> list[str]:
    """The columns that neither the model nor its dataset has.

    Raises:
        RowsRefused: no column is one of the model, or some look misspelt.
    """
    inputs = [str(column["name"]) for column in columns]
    absent = [name for name in inputs if name not in names]
    unknown = [name for name in names if name not in inputs and name not in unused]
    misspelt = {name: match for name in unknown if (match := closest(name, absent, similarity=_MIN_SIMILARITY))}
    if misspelt:
        raise RowsRefused(
            [
                Fault(
                    pointer=f"#/columns/{pointer_step(name)}",
                    detail=f"column {name!r} is unknown; did you mean {match!r}? Rename it, or remove it",
                    code="unknown_field",
                    suggestion=match,
                )
                for name, match in misspelt.items()
            ]
        )
    if len(absent) == len(inputs):
        raise _refused(
            f"has none of the columns of the model: {quoted(inputs)}; line 1 must have the names of the columns, and "
            f"has {quoted(names)}",
            code="missing",
        )
    return unknown


def _notes(
    rows: int, unused: Sequence[str], absent: Sequence[str], unknown: Mapping[str, Collection[str]], cells: int
) -> Iterator[str]:
    """Sentences about columns and categories."""
    if unused:
        shown = ", ".join(map(repr, unused[:_MAX_NAMED]))
        yield f"not used by the model, only copied: {shown}{', ...' if len(unused) > _MAX_NAMED else ''}"
    for name in absent:
        yield f"column {name!r} is missing in {counted(rows, 'row')}, treated as a missing value"
    if unknown:
        count = sum(map(len, unknown.values()))
        shown = "; ".join(f"{name}: {', '.join(list(values)[:_MAX_NAMED])}" for name, values in unknown.items())
        noun = "unknown category" if count == 1 else "unknown categories"
        location = f" in {counted(cells, 'row')}" if count == 1 < cells else ""
        bound = "at least " if max(map(len, unknown.values())) == _MAX_TRACKED else ""
        yield f"{bound}{count:,} {noun} ({shown}){location}, treated as missing"


def added_names(header: Collection[str], classes: Sequence[str]) -> list[str]:
    """The names of the appended columns, all with the same number if one of them is in the header already."""
    base_names = ["prediction", *(["probability"] if classes else []), *(f"probability of {name}" for name in classes)]
    names, number = base_names, 1
    while set(names) & set(header):
        number += 1
        names = [f"{name} ({number})" for name in base_names]
    return names


def _parse(cell: str, notation: Numerals | None) -> str | float:
    """The number of a cell by the notation of the file, or else its text, which is read as in training."""
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


def _rows(table: DelimitedFile) -> Iterator[tuple[int, list[str]]]:
    """The rows, each with the number of its first line."""
    for line, fields in table.rows():
        if isinstance(fields, str):
            raise _refused(f"line {line:,} {fields}")
        if len(fields) != len(table.header):
            raise _refused(f"line {line:,} has {counted(len(fields), 'field')} instead of {len(table.header)}")
        yield line, fields


_SHOWN: Final = 40
"""Maximum number of characters of a cell in a message."""
_SAME_DIGITS: Final = str.maketrans("234567890", "111111111")
_BEFORE_DIGITS: Final = f"+-{CURRENCIES} "
_MAX_SHAPES: Final = 1000
"""Maximum number of ways to write a number that are remembered of a column, but for their digits."""


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
        RowsRefused: a column that was trained with thousands separators mixes decimal points and decimal commas.
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
    """The notations that fit the cells of a column so far; its size is limited."""

    def __init__(self, column: Mapping[str, Any], index: int) -> None:
        self.name, self.index = str(column["name"]), index
        self.signs: set[str] = set()
        self.example = ""
        """A cell with a sign; one that can be read with one decimal sign only, if there is one."""
        self.fits_training = True
        percent = bool(column.get("percent"))
        self.notations = self._candidates = [notation for notation in NOTATIONS if notation.percent == percent]
        self._decimals = {notation.decimal for notation in self.notations}
        self._shapes: set[tuple[str, bool]] = set()
        self._currency = str(column.get("currency", ""))
        self._trained = Numerals.of(column)
        comma = column.get("decimal") == ","
        self._parse = self._trained.number if self._trained else partial(number, decimal_comma=comma)

    def add(self, cells: Iterable[str]) -> None:
        """Narrow the notations. Cells that fit none are left for the service to refuse.

        Raises:
            RowsRefused: see ``find_notations``.
        """
        for cell in cells:
            shape = cell.translate(_SAME_DIGITS), cell.lstrip(_BEFORE_DIGITS).startswith("0")
            if shape in self._shapes and "e" not in shape[0].lower():
                continue  # written alike, it has no further effect
            if len(self._shapes) < _MAX_SHAPES:
                self._shapes.add(shape)
            notations = [notation for notation in self.notations if _fits(cell, notation.number)]
            notations = notations or [notation for notation in self._candidates if _fits(cell, notation.number)]
            if not notations:
                self.signs.update(set(CURRENCIES).intersection(cell))
                continue
            decimals = {notation.decimal for notation in notations}
            if not self._decimals & decimals and self._trained is not None:
                raise _refused(
                    f"column {self.name!r} has decimal points and decimal commas, such as "
                    f"{self.example[:_SHOWN]} and {cell[:_SHOWN]}: write all in the same way"
                )
            if self.fits_training:
                self.fits_training = _fits(cell, self._parse)
            if signs := SIGNS.intersection(cell):
                is_clearer = len(decimals) < 2 <= len(self._decimals)
                self.example = cell if is_clearer or not self.example else self.example
                self.signs |= signs
            self.notations = [notation for notation in self.notations if notation in notations]
            self._decimals &= decimals

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
        return self._trained.decimal if self._trained is not None else "," if "," in self.signs else "."


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
    try:
        parse(cell)
    except ValueError:
        return False
    return True
