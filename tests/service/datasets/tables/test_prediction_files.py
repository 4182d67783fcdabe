"""Files of rows for prediction: numbers that can be read in two ways, and the format of the output."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.datasets.tables import prediction_files
from service.datasets.tables.prediction_files import RowsRefused, find_notations, prepare

POINTS = {"type": "number"}
COMMAS = {"type": "number", "decimal": ","}
GERMAN = {"type": "number", "decimal": ",", "group": "."}
ENGLISH = {"type": "number", "decimal": ".", "group": ","}
Columns = Mapping[str, Mapping[str, Any]]


def read(path: Path, text: str, columns: Columns) -> tuple[list[list[float]], Sequence[str]]:
    """The numbers that are read from a file, and the notes."""
    path.write_text(text)
    inputs = [{"name": name, **column} for name, column in columns.items()]
    prepared = prepare(path.parent, columns=inputs, unused=(), class_names=["a", "b"])
    return np.fromfile(path.parent / prediction_files.INPUTS).reshape(-1, len(inputs)).tolist(), prepared.summary[
        "notes"
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / prediction_files.ROWS


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


@pytest.mark.parametrize(("other", "expected"), [("2", 1234), ("2.5", 1.234), ("2,5", 1234)])
def test_the_training_notation_applies_unless_the_file_contradicts_it(path: Path, other: str, expected: float) -> None:
    """If nothing in the file contradicts it, 1.234 is the same number as in training."""
    numbers, _ = read(path, f"x;y\n1.234;{other}\n", {"x": GERMAN, "y": POINTS})
    assert numbers[0][0] == expected


def test_a_column_with_both_decimal_signs_is_an_error(path: Path) -> None:
    """In the notation of the training data, some of its cells would silently become other numbers."""
    with pytest.raises(RowsRefused, match=r"column 'A' has decimal points and decimal commas, such as 1\.5 and 2,5"):
        read(path, "A;B\n1.234;7\n" + "1.5;7\n" * 600 + "2,5;7\n", {"A": GERMAN, "B": POINTS})


def test_cells_that_are_not_numbers_do_not_hide_the_notation(path: Path) -> None:
    numbers, _ = read(path, "A;B\ninf;7\n12,5;k.A.\n", {"A": POINTS, "B": POINTS})
    assert numbers[1][0] == 12.5


@pytest.mark.nightly
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


@pytest.mark.parametrize(
    ("encoding", "names", "expected"),
    [
        ("cp1252", ["gekündigt"], "cp1252"),
        ("cp1252", ["Łódź"], "utf-8-sig"),
        ("utf-8", ["Łódź"], "utf-8"),
        ("utf-16", ["Łódź"], "utf-16"),
    ],
)
def test_class_names_outside_the_input_encoding_switch_the_output_to_utf8_with_a_bom(
    path: Path, encoding: str, names: list[str], expected: str
) -> None:
    path.write_bytes('Maß;x\n1,5;"2\n3"\n2,5;z\n'.encode(encoding))
    columns = [{"name": "Maß", **POINTS}]
    prepared = prepare(path.parent, columns=columns, unused=["x"], class_names=names)
    np.zeros(2, np.int64).tofile(path.with_name(prediction_files.CLASSES))
    np.ones(2).tofile(path.with_name(prediction_files.PROBABILITIES))
    prediction_files.write(path.parent, prepared, names, as_csv=True)
    output = path.with_name(prediction_files.OUTPUT)
    header = f"Maß;x;prediction;probability;probability of {names[0]}"
    assert output.read_bytes() == f'{header}\n1,5;"2\n3";{names[0]};1;1\n2,5;z;{names[0]};1;1\n'.encode(expected)


def test_a_small_file_that_stands_for_many_inputs_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The columns that it lacks count, too: they are inputs of the network."""
    monkeypatch.setattr(prediction_files, "MAX_NUMBERS", 2000)
    columns = [{"name": name, **POINTS} for name in "abcd"]
    for rows, is_read in ((500, True), (501, False)):
        path.write_text("a\n" + "1\n" * rows)
        try:
            prepare(path.parent, columns=columns, unused=[], class_names=["x"])
        except RowsRefused as error:
            assert not is_read
            assert str(error) == "has more than 500 rows for the 4 columns of the model: send it in parts"
        else:
            assert is_read
