"""Descriptions of columns, folds and importances whose numbers are near the largest or the smallest float."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.datasets.tables.detection import ColumnScan
from service.datasets.tables.rows import range_notes
from service.jobs.queries.folds import spread_of
from service.states import Task
from service.web.inference.evaluating import importances, mean_and_deviation


def test_a_column_of_numbers_up_to_the_largest_float_is_described_without_a_warning() -> None:
    scan = ColumnScan("x", None, decimal_comma=False)
    scan.add(["1e308", "-1e308", "1.7e308"])
    assert scan.describe() == {"name": "x", "type": "number", "missing": 0, "min": -1e308, "max": 1.7e308}


def test_the_furthest_value_is_named_where_distances_are_larger_than_any_float() -> None:
    inputs = np.array([[-1.2e308], [1.7e308]])
    (note,) = range_notes(inputs, [{"name": "x", "type": "number"}], [{"name": "x", "min": -1e308, "max": -0.9e308}])
    assert "such as 1.7e+308" in note


@dataclass
class Rows:
    """Validation rows whose target is the only column, in a unit."""

    unit: float

    def __post_init__(self) -> None:
        self.inputs = np.arange(30.0)[:, None]
        self.labels = np.arange(30.0) / 30 * self.unit

    def __len__(self) -> int:
        return 30


@pytest.mark.parametrize("exponent", [1000, 520, -990])
def test_an_importance_has_the_unit_of_the_target_at_any_size(exponent: int) -> None:
    def measured(unit: float) -> Any:
        info = SimpleNamespace(columns=[{"name": "x"}], task=Task.REGRESSION)
        data: Any = SimpleNamespace(info=info, validation=Rows(unit))
        (column,) = importances(lambda rows: rows[:, 0] / 30 * unit * 0.875, data, seed=0).columns
        return column.mean, column.deviation

    plain, scaled = measured(1.0), measured(2.0**exponent)
    assert plain[1] > 0
    np.testing.assert_allclose(np.ldexp(scaled, -exponent), plain, rtol=1e-12)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7, 1e308, 5e-324])
@pytest.mark.parametrize("count", [1, 3, 5, 10, 1000])
def test_equal_drops_have_their_value_as_mean_and_no_deviation(value: float, count: int) -> None:
    assert mean_and_deviation([value] * count) == (value, 0.0)


def test_a_spread_of_folds_that_no_float_holds_is_absent() -> None:
    assert spread_of([1.7e308, -1.7e308]) is None
    assert spread_of([1e308, -1e308, 0.0]) == 1e308
    assert spread_of([0.1] * 3) == 0
    assert spread_of([3.0]) is None
