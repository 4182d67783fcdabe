"""Columns that alone predict the class."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from service.datasets.tables.analysis.leaks import find_leaks, leak_text

NUMBER, CATEGORY = {"name": "n"}, {"name": "c", "categories": ["a", "b", "c", "d"]}


def random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_number_given_out_by_class_is_found_in_shuffled_rows() -> None:
    rows = random(0).permutation(90)
    assert find_leaks([NUMBER], rows[:, None], rows // 30) == ["n"]
    assert find_leaks([NUMBER], rows[:, None], rows // 30 % 2) == ["n"], "one class on both sides of the other"
    with_missing = np.where(random(1).random(90) < 0.2, np.nan, rows)
    assert find_leaks([NUMBER], with_missing[:, None], rows // 30) == ["n"]


def test_a_category_that_names_the_class_is_found() -> None:
    codes = random(0).integers(0, 4, 60)
    assert find_leaks([CATEGORY], codes[:, None], codes // 2) == ["c"]


@pytest.mark.parametrize("rows", [4, 10, 100, 2000])
def test_chance_is_not_reported(rows: int) -> None:
    found = 0
    for seed in range(100):
        labels = random(seed).integers(0, 2, rows)
        columns = random(1000 + seed).normal(size=(rows, 10))
        found += bool(find_leaks([NUMBER] * 10, columns, labels))
    assert found <= 1


def test_a_column_that_predicts_most_rows_is_no_leak() -> None:
    labels = np.arange(100) // 50
    values: NDArray[np.float64] = np.arange(100.0)
    values[[49, 50]] = 49.5  # equal, but in different classes
    assert find_leaks([NUMBER], values[:, None], labels) == []


def test_a_name_for_each_row_is_no_leak() -> None:
    column = {"name": "c", "categories": [str(code) for code in range(100)]}
    assert find_leaks([column], np.arange(100)[:, None], random(0).integers(0, 2, 100)) == []


def test_all_columns_are_named_up_to_five() -> None:
    rows = random(0).permutation(90)

    def text(names: str) -> str | None:
        columns = [{"name": name} for name in names]
        return leak_text(columns, np.repeat(rows[:, None], len(names), axis=1), rows // 30)

    assert text("n") == "column 'n' alone predicts the class: check for a leak"
    assert str(text("ab")).startswith("each of the columns 'a', 'b' alone predicts")
    assert "'e' and 2 more alone" in str(text("abcdefg"))


def test_a_column_that_is_proportional_to_a_number_to_predict_is_found() -> None:
    targets = random(0).normal(size=200)
    copied, related = 100 - 7 * targets, targets + random(1).normal(size=200)
    inputs = np.column_stack([copied, related, np.full(200, 3.0)])
    inputs[::5, 0] = np.nan
    columns = [{"name": "copied"}, {"name": "related"}, {"name": "constant"}]
    assert find_leaks(columns, inputs, targets) == ["copied"]
    assert leak_text(columns, inputs, targets) == "column 'copied' alone predicts the target: check for a leak"
    assert find_leaks(columns, inputs[:5], targets[:5]) == [], "too few rows"
