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


def test_numbers_are_standardised_categories_spread_and_gaps_marked() -> None:
    made = fitted().apply(RAW)
    scale = np.std([1, 3, 5])
    np.testing.assert_allclose(made[:, 0], [-2 / scale, 0, 0, 2 / scale])
    np.testing.assert_array_equal(made[:, 1], [0, 0, 1, 0])
    np.testing.assert_array_equal(made[:, 2:5], [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(made[:, 5], [0, 0, 1, 0])
    assert made[:, 6].mean() == pytest.approx(0)
    assert made.shape[1] == fitted().width == features_of(COLUMNS) == 7


def test_only_the_rows_that_it_is_fitted_to_count() -> None:
    made = Preprocessing.fit(COLUMNS, RAW[:2])
    assert (made.columns[0]["mean"], made.columns[0]["scale"]) == (2, 1)
    assert made.apply(RAW)[3, 0] == 3


def test_categories_in_another_order_are_the_same_categories() -> None:
    others = [COLUMNS[0], COLUMNS[1] | {"categories": ["Bodø", "Tromsø", "Oslo"]}, COLUMNS[2]]
    made = fitted().apply(np.array([[1.0, 0, 0], [1, 1, 0], [1, 2, 0], [1, NAN, 0]]), others)
    np.testing.assert_array_equal(made[:, 2:5], [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize("values", [[1e308, -1e308, 1e308], [5, 5, 5], [NAN, NAN, NAN], [1e-320, 0, 0]])
def test_odd_numbers_stay_finite(values: list[float]) -> None:
    raw = np.array(values)[:, None]
    made = Preprocessing.fit(COLUMNS[:1], raw)
    assert np.isfinite(made.apply(raw).astype(np.float32)).all()
    assert np.isfinite(made.apply(np.array([[1e308], [-1e308], [NAN]])).astype(np.float32)).all()
    json.dumps(made.document(), allow_nan=False)


def test_fifteen_lines_of_numpy_do_the_same() -> None:
    document = fitted().document()
    features = []
    for place, column in enumerate(document["columns"]):
        values = RAW[:, place]
        missing = np.isnan(values)
        if "categories" in column:
            features += [(values == code) * 1.0 for code in range(len(column["categories"]))]
        else:
            scaled = (values - column["mean"]) / column["scale"]
            features.append(np.clip(np.where(missing, 0, scaled), -1e6, 1e6))
        if column["indicator"]:
            features.append(missing * 1.0)
    np.testing.assert_array_equal(np.stack(features, axis=1), fitted().apply(RAW))


def test_another_format_is_not_read() -> None:
    with pytest.raises(ValueError, match="format 2"):
        Preprocessing.read({"format": 2, "columns": []})


def test_named_rows_become_stored_ones_and_back() -> None:
    columns = fitted().columns
    row = {"age": 3, "city": "Oslo", "since": "1970-01-02"}
    read = read_rows([row, {"age": "5", "city": None}, {"city": "Paris", "id": 7}], columns, ignored=["id"])
    np.testing.assert_array_equal(read.inputs, [[3, 1, 1], [5, NAN, NAN], [NAN, NAN, NAN]])
    assert read.unknown == [(2, "city", "Paris")]
    assert read.absent == {"age": 1, "since": 2}
    assert read.faults == []
    assert named_row(read.inputs[0], columns) == row
    assert named_row(read.inputs[2], columns) == dict.fromkeys(row)


def test_wrong_values_and_columns_are_faults() -> None:
    read = read_rows([{"age": "old", "sinc": 1}, {"since": "soon"}, {}], fitted().columns, ignored=[])
    assert [(row, column) for row, column, _, _ in read.faults] == [(0, "age"), (0, "sinc"), (1, "since"), (2, None)]
    assert read.faults[1][3] == "since"
