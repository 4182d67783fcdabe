"""Numbers that can be read in two ways, and how they are sent for prediction."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from service.cli import tables
from service.cli.tables import find_notations
from service.cli.target import Failure
from service.datasets.tables.rows import read_rows

POINTS = {"type": "number"}
COMMAS = {"type": "number", "decimal": ","}
GERMAN = {"type": "number", "decimal": ",", "group": "."}
ENGLISH = {"type": "number", "decimal": ".", "group": ","}
Columns = Mapping[str, Mapping[str, Any]]


def read(path: Path, text: str, columns: Columns) -> tuple[list[list[float]], Sequence[str]]:
    """The numbers that the service reads from the sent rows, and the notes."""
    path.write_text(text)
    inputs = [{"name": name, **column} for name, column in columns.items()]
    numbers: list[list[float]] = []

    def ask(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        parsed = read_rows(rows, inputs, ignored=())
        assert not parsed.faults
        numbers.extend(parsed.inputs.tolist())
        probabilities = [[1.0]] * len(rows)
        return {"class_names": ["a"], "classes": [0] * len(rows), "probabilities": probabilities, "checkpoint": 1}

    totals = tables.predict(path, None, ask, tables.ModelColumns(inputs=inputs))
    return numbers, totals["notes"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.csv"


@pytest.mark.parametrize("rows_before", [0, 499, 500, 1200])
def test_a_decimal_sign_in_any_row_decides_the_notation_of_all(path: Path, rows_before: int) -> None:
    text = "A,B\n" + "1.234,7\n" + "12,7\n" * rows_before + "12,0.5\n" + "1.234,7\n"
    numbers, notes = read(path, text, {"A": GERMAN, "B": POINTS})
    assert [numbers[0], numbers[-2], numbers[-1]] == [[1.234, 7], [12, 0.5], [1.234, 7]]
    assert notes == ["column 'A': 1.234 is read as 1.234, since column 'B' has 0.5"]


def test_a_notation_that_appears_late_applies_to_all_rows(path: Path) -> None:
    numbers, _ = read(path, "A;B\n" + "1.234;7\n" * 501 + "1.234.567;7\n", {"A": POINTS, "B": POINTS})
    assert (numbers[0], numbers[-1]) == ([1234, 7], [1234567, 7])


def test_a_point_groups_digits_in_a_file_with_decimal_commas(path: Path) -> None:
    numbers, notes = read(path, "A;B\n1.234;1.500,25\n", {"A": POINTS, "B": POINTS})
    assert numbers == [[1234, 1500.25]]
    assert notes == ["column 'A': 1.234 is read as 1234, since column 'B' has 1.500,25"]


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("A;B\n1.234;1.500,25\n", {"A": POINTS, "B": GERMAN}, [1.234, 1500.25]),
        ("A;B\n1.234;2,5\n", {"A": POINTS, "B": COMMAS}, [1.234, 2.5]),
        ("A;B\n1,234;1,500.25\n", {"A": COMMAS, "B": ENGLISH}, [1.234, 1500.25]),
    ],
)
def test_a_file_in_the_training_notation_is_read_as_in_training(
    path: Path, text: str, columns: Columns, expected: list[float]
) -> None:
    """An import keeps the plain reading of ``1.234``, even beside columns in another notation."""
    assert read(path, text, columns) == ([expected], [])


def test_a_column_with_both_decimal_signs_is_an_error(path: Path) -> None:
    """In the notation of the training data, some of its cells would silently become other numbers."""
    with pytest.raises(Failure, match=r"column 'A' has decimal points and decimal commas, such as 1\.5 and 2,5"):
        read(path, "A;B\n1.234;7\n" + "1.5;7\n" * 600 + "2,5;7\n", {"A": GERMAN, "B": POINTS})


def test_cells_that_are_not_numbers_do_not_hide_the_notation(path: Path) -> None:
    numbers, _ = read(path, "A;B\ninf;7\n12,5;k.A.\n", {"A": POINTS, "B": POINTS})
    assert numbers[1][0] == 12.5


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file() -> None:
    columns = [{"name": name, **POINTS} for name in "AB"]
    peaks = []
    for count in (2_000, 20_000):
        rows = ([f"{n / 7:.4f}", f"{n},25"] for n in range(count))
        tracemalloc.start()
        notations, _ = find_notations(rows, ["A", "B"], columns, comma_is_decimal=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert set(notations) == {"B"}
    assert peaks[1] < 1.2 * peaks[0]
