"""What ``predict`` is given, as bodies of requests, where the shape of a list decides what it is."""

from __future__ import annotations

import base64
import datetime as dt
import io
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from tapeline import UnreadableImage
from tapeline.inputs.given import bodies, items_of

GREY = {"kind": "images", "image_shape": [2, 4]}
COLOUR = {"kind": "images", "image_shape": [2, 4, 3]}
TABLE = {"kind": "table", "image_shape": [], "columns": [{"name": "a"}, {"name": "b"}]}
DELETED = {"kind": None, "image_shape": ()}
IMAGE = [[0.0, 0.25, 0.5, 1.0], [1.0, 0.5, 0.25, 0.0]]
HALF = [[[level / 2] * 3 for level in row] for row in IMAGE]
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
        ([[[level] for level in row] for row in IMAGE], GREY, [IMAGE]),
        ([[[level] * 3 + [0.5] for level in row] for row in IMAGE], COLOUR, [HALF]),
        ([IMAGE] * 3, GREY, [IMAGE] * 3),
        ([], GREY, []),
    ],
    ids=[
        "image",
        "images",
        "flat",
        "several flat",
        "of a deleted dataset",
        "colour",
        "one channel",
        "four channels",
        "three images",
        "none",
    ],
)
def test_numbers_are_one_image_or_several(given: Any, dataset: dict[str, Any], images: list[Any]) -> None:
    assert list(bodies(items_of(given, lambda: dataset))) == [{"images": images}]
    if given:
        (body,) = bodies(items_of(np.array(given), lambda: dataset))
        assert [np.asarray(image).tolist() for image in body["images"]] == images


@pytest.mark.parametrize("given", [[1, "x"], [[1, "x"]], ({"a": 1, "b": "x"} for _ in "1"), {"a": 1, "b": "x"}])
def test_values_are_one_row_or_several(given: Any) -> None:
    assert list(bodies(items_of(given, lambda: TABLE))) == [{"rows": [{"a": 1, "b": "x"}]}]


def test_colours_first_are_refused_where_they_would_be_three_images() -> None:
    array = np.zeros((3, 2, 4))
    with pytest.raises(ValueError, match=r"one image with the colours first.*array\.transpose\(1, 2, 0\)"):
        items_of(array, lambda: COLOUR)
    assert len(items_of(list(array), lambda: COLOUR)) == 3
    assert len(items_of(array.transpose(1, 2, 0), lambda: COLOUR)) == 1


@pytest.mark.parametrize(
    "value",
    [
        "x", dt.date(2024, 1, 5), pd.NA, pd.NaT, Decimal("0.10"), pd.Interval(1, 2), pd.Timedelta("90s"),
        pd.Timestamp("2024-01-05"), dt.time(14, 30),
    ],
)  # fmt: skip
def test_values_of_any_kind_are_sent_as_a_file_has_them(value: Any) -> None:
    frame = pd.DataFrame({"a": [value], "b": [value]})
    written = pd.read_csv(io.StringIO(frame.to_csv(index=False)), dtype=str, keep_default_na=False)["a"][0]
    for given in ([value, value], [[value, value]], frame):
        (body,) = bodies(items_of(given, lambda: TABLE))
        sent = body["rows"][0]["a"]
        assert ("" if sent is None else sent).removesuffix("T00:00:00") == written


def test_texts_are_images_of_a_model_that_has_no_columns() -> None:
    assert items_of(["AAAA", "BBBB"], lambda: GREY) == ["AAAA", "BBBB"]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16", "1"])
def test_an_image_of_pillow_is_sent_as_its_file(mode: str) -> None:
    image = Image.fromarray(np.array(IMAGE, np.uint16) * 0x8000) if mode == "I;16" else picture().convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    (sent,) = next(bodies(items_of(Image.open(file), lambda: GREY)))["images"]
    expected = ImageOps.exif_transpose(Image.open(file))
    with Image.open(io.BytesIO(base64.b64decode(sent))) as seen:
        assert seen.size == (2, 4)
        assert "exif" not in seen.info
        factor = 257 if mode == "I;16" else 1
        levels = np.asarray(expected).astype(int) * (255 if mode == "1" else 1)
        assert np.asarray(seen).tolist() == ((levels + factor // 2) // factor).tolist()


def picture() -> Image.Image:
    return Image.fromarray((np.array(IMAGE) * 255).astype(np.uint8))


def test_an_image_of_floats_is_refused_with_the_remedy() -> None:
    image = Image.fromarray(np.array(IMAGE, np.float32))
    with pytest.raises(UnreadableImage, match=r"mode F .*give an array of numbers in \[0, 1\]"):
        list(bodies(items_of(image, lambda: GREY)))
