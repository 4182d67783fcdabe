"""What ``predict`` is given, as bodies of requests, where the shape of a list decides what it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tapeline.inputs.given import bodies, items_of

GREY = {"kind": "images", "image_shape": [2, 4]}
TABLE = {"kind": "table", "image_shape": [], "columns": [{"name": "a"}, {"name": "b"}]}
DELETED = {"kind": None, "image_shape": ()}
IMAGE = [[0.0, 0.25, 0.5, 1.0], [1.0, 0.5, 0.25, 0.0]]
FLAT = [0.0, 0.25, 0.5, 1.0, 1.0, 0.5, 0.25, 0.0]


@pytest.mark.parametrize(
    ("given", "dataset", "images"),
    [
        (IMAGE, GREY, [IMAGE]),
        ([IMAGE, IMAGE], GREY, [IMAGE, IMAGE]),
        (FLAT, GREY, [FLAT]),
        ([FLAT, FLAT], GREY, [FLAT, FLAT]),
        (IMAGE, DELETED, [IMAGE]),
        ([[[1.0, 0.0, 0.0]] * 4] * 2, GREY, [[[[1.0, 0.0, 0.0]] * 4] * 2]),
        ([], GREY, []),
    ],
    ids=["image", "images", "flat", "several flat", "of a deleted dataset", "colour", "none"],
)
def test_numbers_are_one_image_or_several(given: Any, dataset: dict[str, Any], images: list[Any]) -> None:
    assert list(bodies(items_of(given, lambda: dataset))) == [{"images": images}]
    if given:
        (body,) = bodies(items_of(np.array(given), lambda: dataset))
        assert [np.asarray(image).tolist() for image in body["images"]] == images


@pytest.mark.parametrize("given", [[1, "x"], [[1, "x"]], ({"a": 1, "b": "x"} for _ in "1"), {"a": 1, "b": "x"}])
def test_values_are_one_row_or_several(given: Any) -> None:
    assert list(bodies(items_of(given, lambda: TABLE))) == [{"rows": [{"a": 1, "b": "x"}]}]
