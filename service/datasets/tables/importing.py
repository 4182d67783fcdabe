"""Imports a table: converts a CSV or TSV file to arrays of rows and labels for each part, a description of
its columns, and a report.

The file is read three times, in blocks of rows: to check its bytes, to detect the columns, and to write the
arrays. Memory therefore does not grow with the file, except for the labels, which take a few bytes per row.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
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
from service.datasets.formats.options import TableOptions
from service.datasets.importer import MAX_UNPACKED_BYTES, UploadRefused
from service.datasets.info import (
    COLUMNS_FILE,
    IDX_NAMES,
    TEST_NAMES,
    ImportedDataset,
    OnProgress,
    PartName,
    unscored_note,
)
from service.datasets.tables.analysis.leaks import leak_text
from service.datasets.tables.cells import MISSING, is_infinite
from service.datasets.tables.classes import MAX_TEXTS, classes_of, is_quantity, too_many_classes
from service.datasets.tables.detection import ColumnType
from service.datasets.tables.parts import PARTS, SplitColumn, draw_mask
from service.datasets.tables.plan import TABLE, TablePlan
from service.spec.estimation.features import features_of
from service.spec.strict_json import canonical
from service.states import DatasetKind, Task
from service.wording import counted, listed

MAX_ROWS: Final = 10_000_000
MAX_FEATURES: Final = 20_000
"""Maximum number of network inputs."""
MAX_NAMES: Final = 100_000
"""Maximum length of all column names and categories together, in characters; checkpoint headers contain them."""
MAX_REPORTED: Final = 100
"""Maximum number of rejected rows that are listed; the others are only counted."""
_MAX_REJECTED: Final = 0.1
_EXAMPLES: Final = 3
_LARGEST_TARGET: Final = 1e100
"""Errors of numbers up to this one can be squared."""
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
    examples: list[str] = field(default_factory=list)
    """Of malformed rows."""

    def add(self, line: int, reason: str, *, is_malformed: bool = True) -> None:
        self.count += 1
        self.malformed += is_malformed
        if len(self.first) < MAX_REPORTED:
            self.first.append({"line": line, "reason": reason})
        if is_malformed and len(self.examples) < _EXAMPLES:
            self.examples.append(f"line {line:,} {reason}")


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
    """The target of each accepted row, as the number of its text in ``targets``; empty if it is a number to predict."""
    targets: dict[str, int] = field(default_factory=dict)
    row_count: int = 0
    """Number of accepted rows."""

    def run(self) -> ImportedDataset:
        """Scan the rows, determine columns and classes, then read again and write the arrays."""
        self._scan_rows()
        target = self._number_to_predict()
        class_names, labels, class_notes = self._classes() if target is None else self._one_class(target)
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
        if target is None and (note := unscored_note(train_counts, validation_counts, class_names, noun="row")):
            part_notes = [note, *part_notes]
        digests = self._write(columns, labels if target is None else target, parts)
        train = (np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in _FILES[0])
        leak = leak_text(list(columns.values()), *train)
        described = {"classes": class_names} if target is None else {"target": target["name"]}
        digests[COLUMNS_FILE] = hashlib.sha256(
            canonical({"columns": list(columns.values()), **described}).encode()
        ).hexdigest()
        sha256 = write_meta(self.folder, digests)
        return ImportedDataset(
            kind=DatasetKind.TABLE,
            image_shape=(),
            columns=list(columns.values()),
            classes=len(class_names) if target is None else 0,
            class_names=class_names if target is None else None,
            train_count=counts[PartName.TRAIN],
            validation_count=counts[PartName.VALIDATION],
            test_count=counts[PartName.TEST],
            sha256=sha256,
            size_bytes=sum(path.stat().st_size for path in self.folder.iterdir()),
            report={
                "encoding": self.file.encoding.removesuffix("-sig"),
                "delimiter": self.file.delimiter,
                "target": self.plan.header[self.plan.target],
                **({} if target is None else {"task": Task.REGRESSION.value, "range": [target["min"], target["max"]]}),
                **({} if self.split is None else {"split": self.split.name}),
                "rows": self.row_count,
                "rejected_count": self.rejected.count,
                "rejected": self.rejected.first,
                "ignored": ignored,
                "notes": [*part_notes, *class_notes, *notes],
                **({"leak": leak} if leak is not None else {}),
            },
        )

    def _number_to_predict(self) -> dict[str, Any] | None:
        """The description of the target as a column of numbers, if it is what a regressor is to predict.

        Raises:
            UploadRefused: the target cannot be predicted.
        """
        if self.plan.task is Task.CLASSIFICATION or (self.plan.task is None and not self._has_quantity()):
            return None
        scan, name = self.plan.target_scan, self.plan.header[self.plan.target]
        described = scan.describe()
        if isinstance(described, str):
            advice = "name the column to predict as target, or set the task regression if it is this one"
            raise UploadRefused({"target": f"column {name!r} {described.partition(';')[0]}; {advice}"})
        if described["missing"]:
            advice = "set the task regression, which rejects their rows"
            raise UploadRefused({"target": f"column {name!r} has infinite numbers; {advice}"})
        if described["min"] == described["max"]:
            detail = f"column {name!r} has the value {described['min']:g} in every row"
            raise UploadRefused({"target": f"{detail}; there is nothing to predict"})
        largest = max(abs(described["min"]), abs(described["max"]))
        if not 1 / _LARGEST_TARGET <= largest <= _LARGEST_TARGET:
            detail = f"the numbers of column {name!r} are {described['min']:g} to {described['max']:g}"
            limits = f"the largest is to lie between {1 / _LARGEST_TARGET:g} and {_LARGEST_TARGET:g}"
            raise UploadRefused({"target": f"{detail}; {limits}. Express it in another unit, or remove outliers"})
        return described

    def _has_quantity(self) -> bool:
        """Whether the values of the target are numbers, and so many that they are no classes."""
        scan = self.plan.target_scan
        if not self.labels and not scan.is_numeric:  # texts after so many numbers that they were not kept
            raise too_many_classes(scan.name, MAX_TEXTS + 1)
        return scan.is_numeric and (not self.labels or is_quantity(scan.count_different(list(self.targets))))

    def _classes(self) -> tuple[list[str], NDArray[np.uint8], list[str]]:
        """The classes of a classifier: their names, the label of each row, and notes for the user."""
        numbers = np.frombuffer(self.labels, np.uint32)
        name, counts = self.plan.header[self.plan.target], np.bincount(numbers).tolist()
        are_stated = self.plan.task is Task.CLASSIFICATION
        classes = classes_of(list(self.targets), counts, self.plan.target_type, column=name, are_stated=are_stated)
        return classes.names, classes.labels[numbers], classes.notes

    def _one_class(self, target: Mapping[str, Any]) -> tuple[list[str], NDArray[np.uint8], list[str]]:
        """The same for a number to predict: rows of one class, which are divided at random."""
        notes = list(self.plan.target_scan.notes)
        if self.plan.task is None:
            advice = "with the task classification, each number is a class"
            notes.insert(0, f"{target['name']!r} has many different numbers: the task is regression; {advice}")
        return ["all"], np.zeros(self.row_count, np.uint8), notes

    def _scan_rows(self) -> None:
        """Scan all rows: accept or reject them, detect column types, and record targets."""
        rows = self._well_formed_rows()
        while block := list(islice(rows, _BLOCK_ROWS)):
            self._scan_block([fields for _, _, fields in block], [(line, index) for line, index, _ in block])
        if not self.accepted:
            raise DatasetBroken(self.file.path, "has a header, but no rows")
        self._check_rejected(final=True)
        if not self.row_count:
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
        target = fields[self.plan.target].strip()
        if target in MISSING or (self.plan.task is Task.REGRESSION and is_infinite(target)):
            return "has no target value", False
        return None

    def _scan_block(self, texts: list[list[str]], lines: list[tuple[int, int]]) -> None:
        """Scan a block of rows. Reject rows with a cell that does not have the type set by the user."""
        for index, scan in (*self.plan.scans.items(), (self.plan.target, self.plan.target_scan)):
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
        self._add_targets(columns[self.plan.target])

    def _add_targets(self, texts: Sequence[str]) -> None:
        is_recorded = self.row_count == len(self.labels) and self.plan.task is not Task.REGRESSION
        self.row_count += len(texts)
        if self.plan.task is not Task.CLASSIFICATION:
            self.plan.target_scan.add(texts)
        if not is_recorded:
            return
        targets = self.targets
        for text in map(str.strip, texts):
            self.labels.append(targets.setdefault(text, len(targets)))
        if len(targets) > MAX_TEXTS:
            if self.plan.task is Task.CLASSIFICATION or not self.plan.target_scan.is_numeric:
                raise too_many_classes(self.plan.header[self.plan.target], len(targets))
            self.labels = array("I")  # numbers to predict, not classes
            targets.clear()

    def _check_rejected(self, *, final: bool) -> None:
        """Reject the file if too many rows are rejected. Before the end, this needs a minimum number of rows."""
        malformed, row_count = self.rejected.malformed, len(self.accepted)
        if malformed > _MAX_REJECTED * row_count and (final or malformed > 10 * MAX_REPORTED):
            examples = "; ".join(self.rejected.examples) + ", ..." * (malformed > _EXAMPLES)
            raise DatasetBroken(
                self.file.path, f"{malformed:,} of the first {row_count:,} rows cannot be used: {examples}"
            )

    def _describe_columns(self) -> tuple[dict[int, dict[str, Any]], list[dict[str, str]], list[str]]:
        """The used columns by their index in the file, the ignored columns, and notes for the user."""
        columns: dict[int, dict[str, Any]] = {}
        ignored = [{"name": name, "reason": "because of types"} for name in self.plan.ignored_by_user]
        names_by_note: dict[str, list[str]] = {}
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
            for note in scan.notes:
                names_by_note.setdefault(note, []).append(repr(scan.name))
        notes = [f"column{'s' * (len(names) > 1)} {listed(names)}: {note}" for note, names in names_by_note.items()]
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
        self,
        columns: Mapping[int, dict[str, Any]],
        labels: NDArray[np.uint8] | Mapping[str, Any],
        parts: NDArray[np.uint8],
    ) -> dict[str, str]:
        """Read the rows again and write the arrays of each part that has rows; returns their digests.

        Args:
            labels: of each row, or the description of the target of a regressor.
        """
        with ExitStack() as stack:
            inputs, targets, outputs = {}, {}, []
            for part, (rows_name, labels_name) in enumerate(_FILES):
                count = int((parts == part).sum())
                if not count:
                    continue
                shape = count, len(columns)
                inputs[part] = stack.enter_context(ArrayFile.new(self.folder, rows_name, shape, is_float=True))
                is_float = isinstance(labels, Mapping)
                targets[part] = stack.enter_context(
                    ArrayFile.new(self.folder, labels_name, (count,), is_float=is_float)
                )
                if not isinstance(labels, Mapping):
                    targets[part].add(labels[parts == part])
                outputs += [inputs[part], targets[part]]
            row_count = 0
            for texts in self._blocks():
                cells = list(zip(*texts, strict=True))
                values = np.empty((len(texts), len(columns)), np.float64)
                for column_index, (index, column) in enumerate(columns.items()):
                    values[:, column_index] = self.plan.scans[index].values(cells[index], column)
                block = parts[row_count : row_count + len(texts)]
                for part, output in inputs.items():
                    output.add(values[block == part])
                if isinstance(labels, Mapping):
                    numbers = self.plan.target_scan.values(cells[self.plan.target], labels)
                    for part, output in targets.items():
                        output.add(numbers[block == part])
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
