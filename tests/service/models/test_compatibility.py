"""Which datasets a model can predict, and the rows of the file of a prediction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.datasets.cache import Dataset, Examples
from service.datasets.info import DatasetInfo, PartName
from service.models.compatibility import misfits
from service.models.kinds import Predictions
from service.models.prediction_csv import PredictionCsv, in_order_of, inputs_of, parts_of, slices_of
from service.spec.schema import PredictedPart
from service.states import DatasetKind

AGE: dict[str, Any] = {"name": "age", "type": "number", "missing": 1}
CITY: dict[str, Any] = {"name": "city", "type": "category", "categories": ["Bergen", 'Oslo, "N"'], "missing": 0}
SINCE: dict[str, Any] = {"name": "since", "type": "date", "format": "%d.%m.%Y", "missing": 0}

TABLE = DatasetInfo(
    name="people",
    title="People",
    kind=DatasetKind.TABLE,
    image_shape=(),
    columns=(AGE, CITY, SINCE),
    classes=2,
    train_count=3,
    validation_count=2,
    class_names=("no", "yes"),
    source="",
    licence="",
    sha256=None,
    available=True,
    report={"target": "label", "ignored": [{"name": "id"}]},
)
IMAGES = replace(TABLE, name="photos", kind=DatasetKind.IMAGES, columns=(), image_shape=(28, 28, 3), report=None)


def details(columns: Any, shape: tuple[int, ...] = (), data: DatasetInfo = TABLE) -> list[str]:
    return [item.detail for item in misfits(columns, shape, data)]


def test_a_table_with_the_columns_of_the_model_in_any_order_fits() -> None:
    assert misfits([SINCE, AGE], (), TABLE) == []
    assert misfits([CITY | {"categories": ["Bodø"]}], (), TABLE) == []


@pytest.mark.parametrize(
    ("column", "text", "suggestion"),
    [
        (AGE | {"name": "Age"}, "people has no column 'Age', which the model uses; it has 'age'", "age"),
        (AGE | {"name": "zip"}, "people has no column 'zip', which the model uses", None),
        (AGE | {"type": "category"}, "column 'age' is a number in people, and a category in the model", None),
        (AGE | {"name": "label"}, "column 'label' of the model is the target of people", None),
        (AGE | {"name": "id"}, "column 'id' of the model was left out of people at the import", None),
    ],
)
def test_a_column_that_is_missing_or_of_another_type_is_named(column: Any, text: str, suggestion: str | None) -> None:
    (found,) = misfits([column, CITY], (), TABLE)
    assert found.detail.startswith(text)
    assert found.suggestion == suggestion


def test_of_many_missing_columns_the_first_are_named() -> None:
    found = details([AGE | {"name": f"x{number}"} for number in range(30)])
    assert (len(found), found[-1]) == (21, "10 further columns of the model are missing or have another type")


def test_images_need_the_size_and_the_colours_of_the_model() -> None:
    assert details(None, (28, 28, 3), IMAGES) == []
    assert details(None, (28, 28), IMAGES) == [
        "its images are 28 x 28 in colour, and the model predicts images of 28 x 28"
    ]
    assert details(None, (28, 28), TABLE) == ["people is a table, and the model predicts images of 28 x 28"]
    assert details([AGE], (), IMAGES) == ["photos has images, and the model predicts rows with the columns 'age'"]


def dataset() -> Dataset:
    rows = np.array([[41, 0, 19_000], [np.nan, 1, 19_001], [0.1, 1, 19_002.5], [7, 0, 0], [1e300, 1, -1]])
    labels = np.array([0, 1, 1, 0, 1], np.uint8)
    parts = [Examples(rows[piece], labels[piece]) for piece in (slice(0, 3), slice(3, 5))]  # type: ignore[arg-type]
    return Dataset(TABLE, *parts, sha256="")


def test_batches_run_across_the_parts_in_the_order_of_the_file() -> None:
    parts = parts_of(dataset(), PredictedPart.ALL)
    pieces = list(slices_of(parts, 1, 4))
    assert [(name, start, len(examples)) for name, start, examples in pieces] == [
        (PartName.TRAIN, 1, 2),
        (PartName.VALIDATION, 0, 1),
    ]
    indices, columns = in_order_of([SINCE, AGE], TABLE.columns)
    assert (indices, columns) == ([2, 0], [SINCE, AGE])
    assert inputs_of(pieces, indices)[:, 0].tolist() == [19_001, 19_002.5, 0]
    assert [name for name, _ in parts_of(dataset(), PredictedPart.VALIDATION)] == [PartName.VALIDATION]
    assert parts_of(dataset(), PredictedPart.TEST) == []


def test_cells_are_written_as_people_read_them_and_quoted() -> None:
    file, data = PredictionCsv(TABLE, TABLE.class_names), dataset()
    pieces = list(slices_of(parts_of(data, PredictedPart.ALL), 0, 5))
    shares = np.array([[0.25, 0.75]] * 4 + [[1, 1 / 3]], np.float32)
    file.write(pieces, Predictions(shares, shares.argmax(axis=1)))
    assert file.content().decode().splitlines() == [
        "age,city,since,label,prediction,probability,probability of no,probability of yes",
        "41,Bergen,2022-01-08,no,yes,0.75,0.25,0.75",
        ',"Oslo, ""N""",2022-01-09,yes,yes,0.75,0.25,0.75',
        '0.1,"Oslo, ""N""",2022-01-10 12:00:00,yes,yes,0.75,0.25,0.75',
        "7,Bergen,1970-01-01,no,yes,0.75,0.25,0.75",
        '1e+300,"Oslo, ""N""",1969-12-31,yes,no,1,1,0.333333',
    ]


def test_a_column_that_has_the_name_of_an_added_one_keeps_it() -> None:
    file = PredictionCsv(replace(TABLE, columns=(AGE | {"name": "prediction"},)), ())
    assert file.content() == b"prediction,label,prediction (2)\n"
