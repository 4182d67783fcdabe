"""Tables with too many rows are refused while they are read for the first time, before any row is parsed."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from service.datasets.formats.options import TableOptions
from service.datasets.importer import UploadRefused
from service.datasets.tables import importing

LIMIT = 1000
ROWS = "".join(f"{a},{b},{'xy'[a % 2]}\n" for a, b in np.random.default_rng(0).integers(0, 10**9, (200_000, 2)))
"""Digits that gzip packs to half their size."""
ENCODINGS = ("utf-8", "utf-16", "latin-1")


@pytest.fixture(autouse=True)
def _few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "MAX_ROWS", LIMIT)


def refused(path: Path, folder: Path) -> tuple[str, float]:
    """The reason why a table is refused, and the progress of the import until then."""
    progress = [0.0]
    folder.mkdir(exist_ok=True)
    with pytest.raises(UploadRefused) as error:
        importing.import_table(path, folder, fraction=None, options=TableOptions(), on_progress=progress.append)
    return error.value.faults["table"], progress[-1]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("is_packed", [False, True])
def test_a_table_of_too_many_rows_is_refused_after_the_first_of_them(
    tmp_path: Path, encoding: str, is_packed: bool
) -> None:
    path = tmp_path / "x.csv"
    data = f"a,b,{'é' if encoding == 'latin-1' else 'label'}\n{ROWS}".encode(encoding)
    path.write_bytes(gzip.compress(data, 1) if is_packed else data)
    reason, progress = refused(path, tmp_path / "arrays")
    assert reason == "has more than 1,000 rows, counting empty ones; send fewer"
    assert progress < 0.15 * importing._CHECKED_SHARE


@pytest.mark.parametrize("line", ["\n", "\r\n", "1,2,x\n"])
def test_short_and_empty_rows_count(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b,label\n1,2,x\n" + line * (LIMIT + 2), newline="")
    assert refused(path, tmp_path / "arrays")[0].startswith("has more than 1,000 rows")


def test_line_breaks_in_quotation_marks_are_no_rows(tmp_path: Path) -> None:
    folder, path = tmp_path / "arrays", tmp_path / "x.csv"
    row = '{},"a\nb",{}\n'
    rows = "".join(row.format(n % 7, "xy"[n % 2]) for n in range(LIMIT))
    path.write_text(f"a,b,label\n{rows}")
    folder.mkdir()
    dataset = importing.import_table(path, folder, fraction=None, options=TableOptions())
    assert dataset.train_count + dataset.validation_count == LIMIT
    path.write_text(f"a,b,label\n{row.format(1, 'x')}" + "1,c,y\n" * LIMIT)
    assert refused(path, tmp_path / "one more")[0] == "has more than 1,000 rows"
    path.write_text('a,b,label\n1,2,"x"\n' + "\n" * (2 * LIMIT + 1))
    assert refused(path, tmp_path / "lines")[0] == "has more than 2,000 lines, counting empty ones; send fewer"


def test_the_most_rows_are_read(tmp_path: Path) -> None:
    folder, path = tmp_path / "arrays", tmp_path / "x.csv"
    path.write_text("sep=,\na,b,label\n" + "".join(f"{n % 7},{n % 5},{'xy'[n % 2]}\n" for n in range(LIMIT)))
    folder.mkdir()
    dataset = importing.import_table(path, folder, fraction=None, options=TableOptions())
    assert dataset.train_count + dataset.validation_count == LIMIT
