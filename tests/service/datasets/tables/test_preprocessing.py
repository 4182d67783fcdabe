"""From columns to network inputs, as specified in the docstring of ``preprocessing``."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from service.datasets.tables.preprocessing import Preprocessing
from service.datasets.tables.rows import named_row, read_rows
from service.spec.estimation.features import features_of

NAN = float("nan")
COLUMNS: list[dict[str, Any]] = [
    {"name": "age", "type": "number", "missing": 1, "min": 0, "max": 9},
    {"name": "city", "type": "category", "missing": 2, "categories": ["Bergen", "Oslo", "Tromsø"]},
    {"name": "since", "type": "date", "missing": 0, "format": "iso", "min": 0, "max": 2},
]
RAW = np.array([[1, 0, 0], [3, 1, 1], [NAN, NAN, 2], [5, 1, 1]])


def fitted() -> Preprocessing:
    return Preprocessing.read(json.loads(json.dumps(Preprocessing.fit(COLUMNS, RAW).document())))


def test_numbers_are_standardized_categories_one_hot_encoded_and_gaps_flagged() -> None:
    features = fitted().apply(RAW)
    scale = np.std([1, 3, 5])
    np.testing.assert_allclose(features[:, 0], [-2 / scale, 0, 0, 2 / scale])
    np.testing.assert_array_equal(features[:, 1], [0, 0, 1, 0])
    np.testing.assert_array_equal(features[:, 2:5], [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(features[:, 5], [0, 0, 1, 0])
    assert features[:, 6].mean() == pytest.approx(0)
    assert features.shape[1] == fitted().width == features_of(COLUMNS) == 7


def test_only_the_rows_it_is_fitted_to_determine_the_scaling() -> None:
    preprocessing = Preprocessing.fit(COLUMNS, RAW[:2])
    assert (preprocessing.columns[0]["mean"], preprocessing.columns[0]["scale"]) == (2, 1)
    assert preprocessing.apply(RAW)[3, 0] == 3


def test_categories_are_matched_by_name_in_any_order() -> None:
    reordered = [COLUMNS[0], COLUMNS[1] | {"categories": ["Bodø", "Tromsø", "Oslo"]}, COLUMNS[2]]
    features = fitted().apply(np.array([[1.0, 0, 0], [1, 1, 0], [1, 2, 0], [1, NAN, 0]]), reordered)
    np.testing.assert_array_equal(features[:, 2:5], [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize("values", [[1e308, -1e308, 1e308], [5, 5, 5], [NAN, NAN, NAN], [1e-320, 0, 0]])
def test_extreme_constant_and_empty_columns_give_finite_inputs(values: list[float]) -> None:
    raw = np.array(values)[:, None]
    preprocessing = Preprocessing.fit(COLUMNS[:1], raw)
    assert np.isfinite(preprocessing.apply(raw).astype(np.float32)).all()
    assert np.isfinite(preprocessing.apply(np.array([[1e308], [-1e308], [NAN]])).astype(np.float32)).all()
    json.dumps(preprocessing.document(), allow_nan=False)


def test_fifteen_lines_of_numpy_give_the_same_inputs() -> None:
    document = fitted().document()
    features = []
    for index, column in enumerate(document["columns"]):
        values = RAW[:, index]
        missing = np.isnan(values)
        if "categories" in column:
            features += [(values == code) * 1.0 for code in range(len(column["categories"]))]
        else:
            scaled = (values - column["mean"]) / column["scale"]
            features.append(np.clip(np.where(missing, 0, scaled), -1e6, 1e6))
        if column["indicator"]:
            features.append(missing * 1.0)
    np.testing.assert_array_equal(np.stack(features, axis=1), fitted().apply(RAW))


def test_an_unknown_format_version_is_rejected() -> None:
    with pytest.raises(ValueError, match="format 2"):
        Preprocessing.read({"format": 2, "columns": []})


def test_named_rows_are_converted_to_stored_rows_and_back() -> None:
    columns = fitted().columns
    row = {"age": 3, "city": "Oslo", "since": "1970-01-02"}
    result = read_rows([row, {"age": "5", "city": None}, {"city": "Paris", "id": 7}], columns, ignored=["id"])
    np.testing.assert_array_equal(result.inputs, [[3, 1, 1], [5, NAN, NAN], [NAN, NAN, NAN]])
    assert result.unknown == [(2, "city", "Paris")]
    assert result.absent == {"age": 1, "since": 2}
    assert result.faults == []
    assert named_row(result.inputs[0], columns) == row
    assert named_row(result.inputs[2], columns) == dict.fromkeys(row)


def test_invalid_values_unknown_columns_and_empty_rows_are_faults() -> None:
    result = read_rows([{"age": "old", "sinc": 1}, {"since": "soon"}, {}], fitted().columns, ignored=[])
    assert [(row, column) for row, column, _, _ in result.faults] == [(0, "age"), (0, "sinc"), (1, "since"), (2, None)]
    assert result.faults[1][3] == "since"


@pytest.mark.parametrize("value", [0.1, 19.99, -1e-9, 0.0])
def test_a_column_of_equal_decimals_is_constant(value: float) -> None:
    """Their standard deviation is computed as 1e-17 times the value."""
    column = {"name": "x", "type": "number", "missing": 0, "min": value, "max": value + 1}
    fitted = Preprocessing.fit([column], np.full((80, 1), value), target="y", targets=np.full(80, value))
    assert (fitted.columns[0]["scale"], fitted.columns[0]["mean"]) == (1, value)
    assert fitted.target == {"name": "y", "mean": value, "scale": 1}
