"""Imports a table: converts a CSV or TSV file to arrays of rows and labels for each part, a description of
its columns, and a report.

The file is read three times, in blocks of rows: to check its bytes, to detect the columns, and to write the
arrays. Memory therefore does not grow with the file, except for the labels, which take a few bytes per row.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.datasets.errors import DatasetBroken
from service.datasets.formats.array_files import ArrayFile, write_meta
from service.datasets.formats.delimited import DelimitedFile, open_delimited
from service.datasets.importer import MAX_UNPACKED_BYTES, UploadRefused
from service.datasets.info import (
    COLUMNS_FILE,
    IDX_NAMES,
    TEST_NAMES,
    ImportedDataset,
    OnProgress,
    PartName,
    TableOptions,
    unscored_note,
)
from service.datasets.tables.classes import MAX_TEXTS, check_quantity, classes_of, too_many_classes
from service.datasets.tables.detection import ColumnType
from service.datasets.tables.leaks import find_leaks, leak_text
from service.datasets.tables.parts import PARTS, SplitColumn, draw_mask
from service.datasets.tables.plan import TABLE, TablePlan
from service.datasets.tables.values import MISSING, is_number
from service.spec.estimation.features import features_of
from service.spec.strict_json import canonical
from service.states import DatasetKind
from service.wording import counted

MAX_ROWS: Final = 10_000_000
MAX_FEATURES: Final = 20_000
"""Maximum number of network inputs."""
MAX_NAMES: Final = 100_000
"""Maximum length of all column names and categories together, in characters; checkpoint headers contain them."""
MAX_REPORTED: Final = 100
"""Maximum number of rejected rows that are listed; the others are only counted."""
_MAX_REJECTED: Final = 0.1
"""Maximum fraction of rejected rows; with more, the file is probably not a table in the detected format."""
_FILES: Final = (IDX_NAMES[:2], IDX_NAMES[2:], TEST_NAMES)
"""The names of rows and labels of each part, in the order of ``PARTS``."""
_CHECKED_SHARE: Final = 0.02
"""Progress of the import after the bytes are checked."""
_SCANNED_SHARE: Final = 0.65
"""Progress after the types of the columns are determined."""
_BLOCK_ROWS: Final = 2000


def import_table(
    path: Path,
    folder: Path,
    *,
    fraction: float | None,
    options: TableOptions,
    on_progress: OnProgress = lambda done: None,
) -> ImportedDataset:
    """Check an uploaded table and write its arrays into an empty ``folder``.

    Args:
        fraction: of each class for validation; the choice is deterministic.
        on_progress: called with the fraction that is done.

    Raises:
        UploadRefused: the file is not a table that a classifier can be trained on.
        OSError: ``folder`` cannot be written.
    """
    try:
        file = open_delimited(path, max_bytes=MAX_UNPACKED_BYTES, max_rows=MAX_ROWS)
        checked = _with_progress(file, on_progress, 0, _CHECKED_SHARE).check()
        plan = TablePlan.of(checked, options)
        split = None if plan.split is None else SplitColumn(plan.header[plan.split])
        return _Import(checked, plan, folder, fraction, split, on_progress).run()
    except DatasetBroken as error:
        raise UploadRefused({TABLE: error.reason}) from error


@dataclass(slots=True)
class _Rejected:
    """The rejected rows."""

    count: int = 0
    malformed: int = 0
    first: list[dict[str, Any]] = field(default_factory=list)

    def add(self, line: int, reason: str, *, is_malformed: bool = True) -> None:
        self.count += 1
        self.malformed += is_malformed
        if len(self.first) < MAX_REPORTED:
            self.first.append({"line": line, "reason": reason})


@dataclass(slots=True)
class _Import:
    """An import in progress."""

    file: DelimitedFile
    plan: TablePlan
    folder: Path
    fraction: float | None
    split: SplitColumn | None
    on_progress: OnProgress
    rejected: _Rejected = field(default_factory=_Rejected)
    accepted: bytearray = field(default_factory=bytearray)
    """1 for each accepted row and 0 for each rejected one, in the order of the file."""
    labels: array[int] = field(default_factory=lambda: array("I"))
    """The target of each accepted row, as the number of its text in ``targets``."""
    targets: dict[str, int] = field(default_factory=dict)

    def run(self) -> ImportedDataset:
        """Scan the rows, determine columns and classes, then read again and write the arrays."""
        self._scan_rows()
        classes = classes_of(
            list(self.targets),
            np.bincount(np.frombuffer(self.labels, np.uint32)).tolist(),
            self.plan.target_type,
            column=self.plan.header[self.plan.target],
        )
        class_names, labels = classes.names, classes.labels[np.frombuffer(self.labels, np.uint32)]
        columns, ignored, notes = self._describe_columns()
        parts, part_notes = (
            self.split.assign(labels, class_names, self.fraction)
            if self.split is not None
            else (draw_mask(labels, self.fraction).astype(np.uint8), [])
        )
        counts = dict(zip(PARTS, np.bincount(parts, minlength=len(PARTS)).tolist(), strict=True))
        train_counts, validation_counts = (
            np.bincount(labels[parts == PARTS.index(part)]).tolist() for part in PARTS[:2]
        )
        if note := unscored_note(train_counts, validation_counts, class_names, noun="row"):
            part_notes = [note, *part_notes]
        digests = self._write(columns, labels, parts)
        train = (np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in _FILES[0])
        leaks = find_leaks(list(columns.values()), *train)
        digests[COLUMNS_FILE] = hashlib.sha256(
            canonical({"columns": list(columns.values()), "classes": class_names}).encode()
        ).hexdigest()
        sha256 = write_meta(self.folder, digests)
        return ImportedDataset(
            kind=DatasetKind.TABLE,
            image_shape=(),
            columns=list(columns.values()),
            classes=len(class_names),
            class_names=class_names,
            train_count=counts[PartName.TRAIN],
            validation_count=counts[PartName.VALIDATION],
            test_count=counts[PartName.TEST],
            sha256=sha256,
            size_bytes=sum(path.stat().st_size for path in self.folder.iterdir()),
            report={
                "encoding": self.file.encoding.removesuffix("-sig"),
                "delimiter": self.file.delimiter,
                "target": self.plan.header[self.plan.target],
                **({} if self.split is None else {"split": self.split.name}),
                "rows": len(labels),
                "rejected_count": self.rejected.count,
                "rejected": self.rejected.first,
                "ignored": ignored,
                "notes": [*part_notes, *classes.notes, *notes],
                **({"leak": leak_text(leaks)} if leaks else {}),
            },
        )

    def _scan_rows(self) -> None:
        """Scan all rows: accept or reject them, detect column types, and record targets."""
        rows = self._well_formed_rows()
        while block := list(islice(rows, _BLOCK_ROWS)):
            self._scan_block([fields for _, _, fields in block], [(line, index) for line, index, _ in block])
        if not self.accepted:
            raise DatasetBroken(self.file.path, "has a header, but no rows")
        self._check_rejected(final=True)
        if not self.labels:
            detail = f"column {self.plan.header[self.plan.target]!r} has no value in any row; choose another target"
            raise UploadRefused({"target": detail})

    def _well_formed_rows(self) -> Iterator[tuple[int, int, list[str]]]:
        """The rows with a target: line, index in ``accepted``, and fields; the others are rejected."""
        for line, fields in _with_progress(self.file, self.on_progress, _CHECKED_SHARE, _SCANNED_SHARE).rows():
            if len(self.accepted) >= MAX_ROWS:
                raise DatasetBroken(self.file.path, f"has more than {MAX_ROWS:,} rows")
            problem = self._find_problem(fields)
            self.accepted.append(problem is None)
            if problem is None and isinstance(fields, list):
                yield line, len(self.accepted) - 1, fields
            elif problem is not None:
                reason, is_malformed = problem
                self.rejected.add(line, reason, is_malformed=is_malformed)
                self._check_rejected(final=False)

    def _find_problem(self, fields: list[str] | str) -> tuple[str, bool] | None:
        if isinstance(fields, str):
            return fields, True
        width = len(self.plan.header)
        if len(fields) != width:
            count = counted(len(fields), "field")
            return f"has {count} instead of {width:,}", True
        if fields[self.plan.target].strip() in MISSING:
            return "has no target value", False
        return None

    def _scan_block(self, texts: list[list[str]], lines: list[tuple[int, int]]) -> None:
        """Scan a block of rows. Reject rows with a cell that does not have the type set by the user."""
        for index, scan in self.plan.scans.items():
            if scan.requested_type not in (ColumnType.NUMBER, ColumnType.DATE):
                continue
            unfit = scan.find_unfit([row[index] for row in texts])
            for row in unfit:
                line, row_index = lines[row]
                self.accepted[row_index] = 0
                cell = texts[row][index].strip()[:40]
                self.rejected.add(line, f"column {scan.name!r}: {cell!r} is not a {scan.requested_type}")
                self._check_rejected(final=False)
            for row in reversed(unfit):
                del texts[row], lines[row]
        if not texts:
            return
        columns = list(zip(*texts, strict=True))
        for index, scan in self.plan.scans.items():
            scan.add(columns[index])
        if self.split is not None and self.plan.split is not None:
            self.split.add(columns[self.plan.split])
        targets = self.targets
        for text in map(str.strip, columns[self.plan.target]):
            code = targets.setdefault(text, len(targets))
            self.labels.append(code)
        if len(targets) > MAX_TEXTS:
            column = self.plan.header[self.plan.target]
            if self.plan.target_type is not ColumnType.CATEGORY and all(map(is_number, targets)):
                check_quantity(column, np.bincount(np.frombuffer(self.labels, np.uint32)).tolist())
            raise too_many_classes(column, len(targets))

    def _check_rejected(self, *, final: bool) -> None:
        """Reject the file if too many rows are rejected. Before the end, this needs a minimum number of rows."""
        malformed, row_count = self.rejected.malformed, len(self.accepted)
        if malformed > _MAX_REJECTED * row_count and (final or malformed > 10 * MAX_REPORTED):
            examples = "; ".join(f"line {row['line']:,} {row['reason']}" for row in self.rejected.first[:3])
            raise DatasetBroken(
                self.file.path,
                f"{malformed:,} of the first {row_count:,} rows cannot be used: {examples}"
                + (", ..." * (malformed > 3)),
            )

    def _describe_columns(self) -> tuple[dict[int, dict[str, Any]], list[dict[str, str]], list[str]]:
        """The used columns by their index in the file, the ignored columns, and notes for the user."""
        columns: dict[int, dict[str, Any]] = {}
        ignored = [{"name": name, "reason": "because of types"} for name in self.plan.ignored_by_user]
        notes = []
        for index, scan in self.plan.scans.items():
            try:
                description = scan.describe()
            except ValueError as error:
                raise UploadRefused({"types": f"column {scan.name!r} {error}"}) from error
            if isinstance(description, str):
                is_padding = index in self.plan.padding and scan.missing == scan.rows
                reason = "has no name and no values: the lines end with a delimiter" if is_padding else description
                ignored.append({"name": scan.name, "reason": reason})
                continue
            columns[index] = description
            notes += scan.notes
        if not columns:
            reasons = "; ".join(f"{entry['name']!r} {entry['reason']}" for entry in ignored[:5])
            raise UploadRefused({TABLE: f"has no column to learn from: {reasons}"})
        size = sum(len(text) for entry in columns.values() for text in (entry["name"], *entry.get("categories", ())))
        if size > MAX_NAMES:
            detail = f"has column names and categories of {size:,} characters; at most {MAX_NAMES:,} are stored"
            raise UploadRefused({TABLE: f"{detail}. Ignore columns with types"})
        if (features := features_of(list(columns.values()))) > MAX_FEATURES:
            detail = f"becomes {features:,} inputs of a network; at most {MAX_FEATURES:,} are allowed"
            raise UploadRefused({TABLE: f"{detail}. Ignore columns with types"})
        if self.plan.looks_like_row(columns, self.targets):
            shown = ", ".join(map(repr, self.plan.header[:3])) + (", ..." if len(self.plan.header) > 3 else "")
            notes.insert(
                0, f"line 1 ({shown}) is read as the column names, but looks like a row: is the header missing?"
            )
        return columns, ignored, notes

    def _write(
        self, columns: Mapping[int, dict[str, Any]], labels: NDArray[np.uint8], parts: NDArray[np.uint8]
    ) -> dict[str, str]:
        """Read the rows again and write the arrays of each part that has rows; returns their digests."""
        with ExitStack() as stack:
            inputs, outputs = {}, []
            for part, (rows_name, labels_name) in enumerate(_FILES):
                count = int((parts == part).sum())
                if not count:
                    continue
                shape = count, len(columns)
                inputs[part] = stack.enter_context(ArrayFile.new(self.folder, rows_name, shape, is_float=True))
                labels_file = stack.enter_context(ArrayFile.new(self.folder, labels_name, (count,)))
                labels_file.add(labels[parts == part])
                outputs += [inputs[part], labels_file]
            row_count = 0
            for texts in self._blocks():
                cells = list(zip(*texts, strict=True))
                values = np.empty((len(texts), len(columns)), np.float64)
                for column_index, (index, column) in enumerate(columns.items()):
                    values[:, column_index] = self.plan.scans[index].values(cells[index], column)
                block = parts[row_count : row_count + len(texts)]
                for part, output in inputs.items():
                    output.add(values[block == part])
                row_count += len(texts)
        return {output.name: output.digest for output in outputs}

    def _blocks(self) -> Iterator[list[list[str]]]:
        rows = _with_progress(self.file, self.on_progress, _SCANNED_SHARE, 1).rows()
        pairs = zip(self.accepted, rows, strict=True)
        accepted = (fields for is_kept, (_, fields) in pairs if is_kept and isinstance(fields, list))
        while block := list(islice(accepted, _BLOCK_ROWS)):
            yield block


def _with_progress(file: DelimitedFile, on_progress: OnProgress, start: float, stop: float) -> DelimitedFile:
    """The same file, with the progress of reading it scaled to the range from ``start`` to ``stop``."""
    return replace(file, on_progress=lambda done: on_progress(start + done * (stop - start)))
