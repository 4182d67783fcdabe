"""Assigns the columns of a table their roles, from the header and the options of the upload."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

import numpy as np

from service.datasets.errors import column_hint
from service.datasets.formats.delimited import DELIMITERS, DelimitedFile
from service.datasets.formats.options import TableOptions
from service.datasets.importer import UploadRefused
from service.datasets.tables.detection import ColumnScan, ColumnType
from service.datasets.tables.values import is_number
from service.states import Task

TABLE: Final = "table"
"""The form field with the file of a table."""
MAX_COLUMNS: Final = 2000
MAX_NAME: Final = 100
"""Maximum length of the name of a column or class, in characters."""

_PEEKED_ROWS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePlan:
    """The roles of the columns.

    Attributes:
        target: index of the target column.
        target_scan: what its values are, as numbers.
        split: index of the column that assigns rows to parts.
        scans: the columns that are not ignored, by index.
        unnamed: the indices of the columns without a name in the file.
        padding: those of them at the end that seem to be empty, probably because lines end with a delimiter.
    """

    header: Sequence[str]
    target: int
    target_scan: ColumnScan
    task: Task | None
    split: int | None
    scans: Mapping[int, ColumnScan]
    ignored_by_user: Sequence[str]
    target_type: ColumnType | None
    unnamed: frozenset[int]
    padding: frozenset[int]

    @classmethod
    def of(cls, file: DelimitedFile, options: TableOptions) -> TablePlan:
        """The plan for a file.

        Raises:
            UploadRefused: the header is invalid, or the options name columns that do not exist.
        """
        header = _check_header(file)
        faults: dict[str, str] = {}
        split = header.index(options.split) if options.split in header else None
        if options.split is not None and split is None:
            faults["split"] = f"{options.split!r} is no column{column_hint(options.split, header)}"
        padding = _find_padding(file)
        target = max((index for index in range(len(header)) if index != split and index not in padding), default=-1)
        if target < 0:
            raise UploadRefused({TABLE: "has no column with values for a target"})
        if options.target is not None:
            target = header.index(options.target) if options.target in header else -1
            if target < 0:
                faults["target"] = f"{options.target!r} is not a column{column_hint(options.target, header)}"
        if unknown := [name for name in options.types if name not in header]:
            faults["types"] = "; ".join(f"{name!r} is not a column{column_hint(name, header)}" for name in unknown[:5])
        if split is not None and options.split in options.types:
            faults["types"] = f"{options.split!r} assigns rows to parts, and has no type"
        if split == target:
            faults["split"] = f"{options.split!r} is the target; the parts must be in another column"
        types = {name: ColumnType(value) for name, value in options.types.items()}
        target_type = types.get(header[target])
        if target >= 0 and target_type in (ColumnType.IGNORE, ColumnType.DATE):
            faults["types"] = f"{header[target]!r} is the target, which must be a category or a number"
        if options.task is Task.REGRESSION and target_type is ColumnType.CATEGORY:
            faults["types"] = f"{header[target]!r} is the target of a regression, which must be a number"
        if faults:
            raise UploadRefused(faults)
        decimal_comma = file.delimiter != ","
        return cls(
            header=header,
            target=target,
            target_scan=ColumnScan(
                header[target],
                ColumnType.NUMBER if options.task is Task.REGRESSION else None,
                decimal_comma=decimal_comma,
            ),
            task=options.task or (Task.CLASSIFICATION if target_type is ColumnType.CATEGORY else None),
            split=split,
            scans={
                index: ColumnScan(name, types.get(name), decimal_comma=decimal_comma)
                for index, name in enumerate(header)
                if index not in (target, split) and types.get(name) is not ColumnType.IGNORE
            },
            ignored_by_user=[name for name in header if types.get(name) is ColumnType.IGNORE],
            target_type=target_type,
            unnamed=file.unnamed,
            padding=padding,
        )

    def looks_like_row(self, columns: Mapping[int, Mapping[str, Any]], targets: Collection[str]) -> bool:
        """Whether the header looks like a row, so that the file has no header: each name has the type of its
        column.

        Args:
            columns: the descriptions of the used columns, by index.
            targets: the values of the target.
        """
        names, target = self.header, self.header[self.target]
        if target not in targets and not (is_number(target) and all(map(is_number, targets))):
            return False
        named_indices = [index for index in columns if index not in self.unnamed]
        if all(names[index] == str(index) for index in named_indices if is_number(names[index])) and any(
            is_number(names[index]) for index in named_indices
        ):
            return False  # the columns are numbered
        try:
            return bool(named_indices) and not any(
                np.isnan(self.scans[index].values([names[index]], columns[index])).any() for index in named_indices
            )
        except ValueError:
            return False


def _check_header(file: DelimitedFile) -> list[str]:
    """The names of the columns.

    Raises:
        UploadRefused: the first line has no column names, or names that are equal or too long.
    """
    header = list(file.header)
    if len(header) < 2:
        names = ", ".join(DELIMITERS.values())
        detail = f"line 1 has only one column; columns are separated by {names.rpartition(', ')[0]} or vertical bar"
        raise UploadRefused({TABLE: detail})
    if len(header) > MAX_COLUMNS:
        raise UploadRefused({TABLE: f"has {len(header):,} columns; at most {MAX_COLUMNS:,} are read"})
    if all(map(is_number, header)) and header != [str(index) for index in range(len(header))]:
        raise UploadRefused({TABLE: "line 1 contains numbers; it must contain the column names"})
    column_numbers: dict[str, int] = {}
    for index, name in enumerate(header):
        if len(name) > MAX_NAME:
            detail = f"column {index + 1} has a name of {len(name):,} characters; at most {MAX_NAME} are allowed"
            raise UploadRefused({TABLE: detail})
        if name in column_numbers:
            hint = "; is line 1 a row? It must contain the column names" if is_number(name) else ""
            raise UploadRefused(
                {TABLE: f"columns {column_numbers[name]} and {index + 1} have the same name {name!r}{hint}"}
            )
        column_numbers[name] = index + 1
    return header


def _find_padding(file: DelimitedFile) -> frozenset[int]:
    """The columns at the end without a name and without a value in the first rows."""
    width = first = len(file.header)
    while first - 1 in file.unnamed:
        first -= 1
    if first < width:
        for _, fields in islice(replace(file, on_progress=lambda done: None).rows(), _PEEKED_ROWS):
            if isinstance(fields, list) and len(fields) == width:
                first = max([first, *(index + 1 for index, text in enumerate(fields) if text.strip())])
    return frozenset(range(first, width))
