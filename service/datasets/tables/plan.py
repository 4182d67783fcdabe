"""Assigns the columns of a table their roles, from the header and the options of the upload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.datasets.errors import closest
from service.datasets.formats.delimited import DELIMITERS, DelimitedFile
from service.datasets.importer import UploadRefused
from service.datasets.info import TableOptions
from service.datasets.tables.detection import ColumnScan, ColumnType
from service.datasets.tables.values import is_number

TABLE: Final = "table"
"""The form field with the file of a table."""
MAX_COLUMNS: Final = 2000
MAX_NAME: Final = 100
"""Maximum length of the name of a column or class, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePlan:
    """The roles of the columns.

    Attributes:
        target: index of the target column.
        split: index of the column that assigns rows to parts.
        scans: the columns that are not ignored, by index.
    """

    header: Sequence[str]
    target: int
    split: int | None
    scans: Mapping[int, ColumnScan]
    by_person: Sequence[str]
    target_type: ColumnType | None

    @classmethod
    def of(cls, file: DelimitedFile, options: TableOptions) -> TablePlan:
        """The plan for a file.

        Raises:
            UploadRefused: the header is invalid, or the options name columns that do not exist.
        """
        header = _checked_header(file)
        faults: dict[str, str] = {}
        split = header.index(options.split) if options.split in header else None
        if options.split is not None and split is None:
            faults["split"] = f"{options.split!r} is no column{_meant(options.split, header)}"
        target = len(header) - (2 if split == len(header) - 1 else 1)
        if options.target is not None:
            target = header.index(options.target) if options.target in header else -1
            if target < 0:
                faults["target"] = f"{options.target!r} is not a column{_meant(options.target, header)}"
        if unknown := [name for name in options.types if name not in header]:
            faults["types"] = "; ".join(f"{name!r} is not a column{_meant(name, header)}" for name in unknown[:5])
        if split is not None and options.split in options.types:
            faults["types"] = f"{options.split!r} assigns rows to parts, and has no type"
        if split == target:
            faults["split"] = f"{options.split!r} is the target; the parts must be in another column"
        types = {name: ColumnType(value) for name, value in options.types.items()}
        wanted = types.get(header[target])
        if target >= 0 and wanted in (ColumnType.IGNORE, ColumnType.DATE):
            faults["types"] = f"{header[target]!r} is the target, which must be a category or a number"
        if faults:
            raise UploadRefused(faults)
        comma = file.delimiter != ","
        return cls(
            header=header,
            target=target,
            split=split,
            scans={
                index: ColumnScan(name, types.get(name), decimal_comma=comma)
                for index, name in enumerate(header)
                if index not in (target, split) and types.get(name) is not ColumnType.IGNORE
            },
            by_person=[name for name in header if types.get(name) is ColumnType.IGNORE],
            target_type=wanted,
        )


def _checked_header(file: DelimitedFile) -> list[str]:
    """The names of the columns.

    Raises:
        UploadRefused: the first line has no column names, or names that are equal or too long.
    """
    header = list(file.header)
    if len(header) < 2:
        known = ", ".join(DELIMITERS.values())
        detail = f"line 1 has only one column; columns are separated by {known.rpartition(', ')[0]} or vertical bar"
        raise UploadRefused({TABLE: detail})
    if len(header) > MAX_COLUMNS:
        raise UploadRefused({TABLE: f"has {len(header):,} columns; at most {MAX_COLUMNS:,} are read"})
    if all(map(is_number, header)) and header != [str(index) for index in range(len(header))]:
        raise UploadRefused({TABLE: "line 1 contains numbers; it must contain the column names"})
    seen: dict[str, int] = {}
    for index, name in enumerate(header):
        if not name:
            header[index] = name = f"column_{index + 1}"
        if len(name) > MAX_NAME:
            detail = f"column {index + 1} has a name of {len(name):,} characters; at most {MAX_NAME} are allowed"
            raise UploadRefused({TABLE: detail})
        if name in seen:
            raise UploadRefused({TABLE: f"columns {seen[name]} and {index + 1} have the same name {name!r}"})
        seen[name] = index + 1
    return header


def _meant(name: str, header: Sequence[str]) -> str:
    found = closest(name, header)
    shown = ", ".join(map(repr, header[:20])) + (f" and {len(header) - 20:,} more" if len(header) > 20 else "")
    return f"; did you mean {found!r}?" if found else f"; the columns are {shown}"
