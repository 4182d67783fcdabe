"""Numeric targets: what is a class, what is a number to predict, and which numbers are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.datasets.tables.classes import MAX_TEXTS
from service.states import Task
from tests.service.datasets.tables.test_importing import read, refusal


def numbers(values: int, rows_each: int) -> str:
    """A table whose target has this many numbers, each in as many rows."""
    return "x,y\n" + "".join(f"{n % 7},{100 + n % values}\n" for n in range(values * rows_each))


@pytest.mark.parametrize(("values", "rows_each"), [(20, 4), (3, 4)])
def test_a_target_of_few_numbers_with_few_rows_each_is_refused_with_both_remedies(
    tmp_path: Path, values: int, rows_each: int
) -> None:
    data = numbers(values, rows_each)
    message = refusal(tmp_path, data)
    assert f"column 'y' has {values} different numbers, with {rows_each} rows each in the median" in message
    assert "set the task regression" in message
    assert "set its type to category" in message
    assert read(tmp_path, data, types={"y": "category"}).dataset.classes == values
    assert read(tmp_path, data, task=Task.REGRESSION).dataset.classes == 0


@pytest.mark.parametrize(("values", "rows_each"), [(21, 50), (214, 2)])
def test_many_different_numbers_are_proposed_for_regression(tmp_path: Path, values: int, rows_each: int) -> None:
    data = numbers(values, rows_each)
    imported = read(tmp_path, data, sandbox=True)
    assert (imported.dataset.classes, imported.dataset.class_names) == (0, None)
    assert imported.report["target"] == "y"
    assert imported.report["range"] == [100, 100 + values - 1]
    assert "with the task classification" in imported.report["notes"][0]
    targets = np.concatenate([imported.train.labels, imported.validation.labels])
    assert targets.dtype == np.float64
    assert sorted(targets) == sorted(100 + n % values for n in range(values * rows_each))
    inputs = np.concatenate([imported.train.inputs, imported.validation.inputs])[:, 0]
    assert {(x, y) for x, y in zip(inputs, targets, strict=True)} <= {(n % 7, 100 + n % values) for n in range(9999)}
    if values < 30:
        assert read(tmp_path, data, types={"y": "category"}).dataset.classes == values
    assert read(tmp_path, data, task=Task.CLASSIFICATION).dataset.classes == values


def test_one_number_in_several_notations_is_one_value(tmp_path: Path) -> None:
    texts = [f"{n % 8}{('', '.0', '.00')[n % 3]}" for n in range(240)]
    assert read(tmp_path, "x,y\n" + "".join(f"{n % 7},{text}\n" for n, text in enumerate(texts))).dataset.classes == 8


def test_a_text_after_more_numbers_than_are_kept_is_too_many_classes(tmp_path: Path) -> None:
    data = "x,y\n" + "".join(f"{n % 7},{n}.5\n" for n in range(MAX_TEXTS + 1)) + "1,many\n"
    assert "a number is predicted with the task regression" in refusal(tmp_path, data)


@pytest.mark.parametrize("cell", ["1e300", "-2e101"])
def test_numbers_whose_squares_overflow_are_refused(tmp_path: Path, cell: str) -> None:
    assert "between 1e-100 and 1e+100. Express it in another unit" in refusal(tmp_path, prices(cell))


def test_a_refusal_shows_rows_that_caused_it(tmp_path: Path) -> None:
    data = prices(*[""] * 4, *["many"] * 30)
    assert "30 of the first 134 rows cannot be used: line 106 column 'price': 'many'" in refusal(
        tmp_path, data, task=Task.REGRESSION
    )


def prices(*cells: str, delimiter: str = ",") -> str:
    rows = "".join(f"{n % 5}{delimiter}{1000 + 7 * n}.5\n" for n in range(100))
    return f"rooms{delimiter}price\n" + rows + "".join(f"3{delimiter}{cell}\n" for cell in cells)


def test_rows_without_a_finite_number_to_predict_are_rejected(tmp_path: Path) -> None:
    imported = read(tmp_path, prices("", "inf", "many", "1700"), task=Task.REGRESSION)
    assert imported.report["rows"] == 101
    assert [item["reason"] for item in imported.report["rejected"]] == [
        "has no target value",
        "has no target value",
        "column 'price': 'many' is not a number",
    ]
    assert "infinite numbers; set the task regression" in refusal(tmp_path, prices("inf"))


def test_a_number_to_predict_may_have_any_notation(tmp_path: Path) -> None:
    data = "rooms;Preis\n" + "".join(f"{n % 5};{n + 1}.450,50 €\n" for n in range(100))
    imported = read(tmp_path, data)
    targets = np.concatenate([imported.train.labels, imported.validation.labels])
    assert sorted(targets) == [1000 * (n + 1) + 450.5 for n in range(100)]


@pytest.mark.parametrize(
    ("data", "options", "word"),
    [
        (prices(), {"types": {"price": "category"}, "task": Task.REGRESSION}, "must be a number"),
        (prices().replace("\n", "x\n"), {"task": Task.REGRESSION}, "cannot be used"),
        ("rooms,price\n" + "".join(f"{n % 5},7\n" for n in range(99)), {"task": Task.REGRESSION}, "nothing to predict"),
        ("x,Nr\n" + "".join(f"{n % 5},{n}\n" for n in range(99)), {}, "counts the rows"),
    ],
)
def test_targets_that_no_regressor_can_predict_are_refused(tmp_path: Path, data: str, options: Any, word: str) -> None:
    assert word in refusal(tmp_path, data, **options)


def test_a_regressor_may_learn_from_a_split_column_and_is_warned_of_a_copied_target(tmp_path: Path) -> None:
    parts = ("train", "train", "val", "test")
    rows = "".join(f"{n % 5},{parts[n % 4]},{n * 1.5},{n * 3 + n % 3 / 100}\n" for n in range(200))
    imported = read(tmp_path, "x,part,euro,mark\n" + rows, split="part")
    dataset = imported.dataset
    assert (dataset.train_count, dataset.validation_count, dataset.test_count) == (100, 50, 50)
    assert imported.report["leak"] == "column 'euro' alone predicts the target: check for a leak"


def test_targets_with_more_values_than_are_tracked_are_numbers_to_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.datasets.tables.importing.MAX_TEXTS", 50)
    monkeypatch.setattr("service.datasets.tables.importing._BLOCK_ROWS", 30)
    imported = read(tmp_path, prices())
    assert (imported.dataset.classes, imported.report["rows"]) == (0, 100)
    texts = "x,y\n" + "".join(f"{n % 5},n{n}\n" for n in range(200))
    assert "different values" in refusal(tmp_path, texts)


@pytest.mark.parametrize(("values", "rows_each"), [(20, 5), (2, 1), (10, 100)])
def test_a_few_numbers_with_enough_rows_are_classes(tmp_path: Path, values: int, rows_each: int) -> None:
    dataset = read(tmp_path, numbers(values, max(rows_each, 2))).dataset
    assert dataset.class_names == [str(100 + number) for number in range(values)]
