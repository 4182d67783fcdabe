"""Images sent for prediction."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from service.datasets.cache import Dataset
from service.web.http import slots
from tests.security.slow_inputs import jpeg
from tests.service.web.inference.networks import CLASSIFIERS, png, pointers, post


def test_a_drawing_is_cropped_and_centred(client: FlaskClient, train: Any, job: Any, digits: Dataset) -> None:
    job_id = job(train("classifier", **CLASSIFIERS["averaged"]))
    rng = np.random.default_rng(0)
    images, labels = digits.validation.inputs[:200], digits.validation.labels[:200]
    drawn = []
    for image in images:  # as on a page: ten times as large, dark on light, at a random position
        sheet = np.zeros((400, 420), np.uint8)
        top, left = rng.integers(0, 120, 2)
        sheet[top : top + 280, left : left + 280] = image.repeat(10, 0).repeat(10, 1)
        drawn.append(png(255 - sheet))

    def hits(**options: Any) -> int:
        classes: list[int] = []
        for low in range(0, 200, 50):
            classes += post(client, job_id, "predict", images=drawn[low : low + 50], invert=True, **options)["classes"]
        return int(np.count_nonzero(labels == classes))

    expected = post(client, job_id, "predict", images=[png(image) for image in images])["classes"]
    assert hits(fit=True) >= np.count_nonzero(labels == expected) - 6
    assert hits() < 120


def test_transparent_areas_are_background(client: FlaskClient, classifier: str, digits: Dataset) -> None:
    image = digits.validation.inputs[0]
    light = np.dstack([np.full((28, 28, 3), 255, np.uint8), image])  # white ink; alpha is the digit
    dark = np.dstack([np.zeros((28, 28, 3), np.uint8), image])
    plain, on_black, on_white, sixteen_bit = (
        post(client, classifier, "predict", images=[encoded], invert=inverted)["probabilities"][0]
        for encoded, inverted in (
            (png(image), False),
            (png(light), False),
            (png(dark), True),
            (png(image.astype(np.uint16) * 257), False),
        )
    )
    np.testing.assert_allclose([on_black, on_white, sixteen_bit], [plain] * 3, atol=1e-6)


UNREADABLE: list[tuple[Any, str]] = [
    ("@@", "base64"),
    (base64.b64encode(b"a text").decode(), "not a PNG"),
    (base64.b64encode(b"GIF89a").decode(), "damaged"),
    (png(np.zeros((28, 28), np.uint8))[:60], "damaged PNG"),
    (png(np.zeros((1, 2049), np.uint8)), "2048 per side"),
    ([[0.5] * 28] * 27 + [[0.5]], "equal length"),
    ([["0.5"] * 28] * 28, "rows of numbers"),
    ([[True] * 28] * 28, "rows of numbers"),
    ([[0.5] * 28] * 27 + [[1.5] * 28], "[0, 1]"),
    ([0.5] * 783, "[783]"),
    ([[[0.5]]], "[1, 1, 1]"),
    ([], "[0]"),
    (None, "rows of numbers"),
    ({"a": 1}, "rows of numbers"),
]


def test_every_unreadable_image_is_named(client: FlaskClient, classifier: str) -> None:
    valid = png(np.zeros((28, 28), np.uint8))
    problem = post(client, classifier, "predict", 422, images=[valid, *(image for image, _ in UNREADABLE)])
    assert problem["code"] == "invalid_input"
    assert [fault["pointer"] for fault in problem["errors"]] == [f"#/images/{n + 1}" for n in range(len(UNREADABLE))]
    for fault, (_, message) in zip(problem["errors"], UNREADABLE, strict=True):
        assert message in fault["detail"]


def test_pngs_and_numbers_wait_for_no_files_of_other_formats(
    client: FlaskClient, classifier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = base64.b64encode(jpeg(10, side=28)).decode()
    numbers, image = [[0.5] * 28] * 28, png(np.zeros((28, 28), np.uint8))
    for pool in (slots.FILE_DECODING, slots.PNG_DECODING):
        monkeypatch.setattr(pool, "waiting", 0)
    with slots.FILE_DECODING.slot("ann"), slots.FILE_DECODING.slot("bob"):
        assert post(client, classifier, "predict", 503, images=[file])["code"] == "busy"
        post(client, classifier, "predict", images=[image, numbers])
        with slots.PNG_DECODING.slot("ann"), slots.PNG_DECODING.slot("bob"):
            assert post(client, classifier, "predict", 503, images=[image])["code"] == "busy"
            post(client, classifier, "predict", images=[numbers])
    post(client, classifier, "predict", images=[file, image, numbers])


def test_a_jpeg_of_many_scans_is_not_decoded(client: FlaskClient, classifier: str) -> None:
    images = [base64.b64encode(jpeg(count, side=28)).decode() for count in (100, 101, 4500)]
    problem = post(client, classifier, "predict", 422, images=images)
    details = {fault["pointer"]: fault["detail"] for fault in problem["errors"]}
    detail = "has more than 100 scans; save it again, as a JPEG that is not progressive"
    assert details == {"#/images/1": detail, "#/images/2": detail}


def test_a_decompression_bomb_is_not_decompressed(client: FlaskClient, classifier: str) -> None:
    """A header that claims a hundred million pixels, and a megabyte of zeros compressed into a few bytes."""
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
    )
    problem = post(client, classifier, "predict", 422, images=[base64.b64encode(bomb).decode()])
    assert "10000 x 10000" in problem["errors"][0]["detail"]


def test_a_png_with_a_second_header_is_damaged(client: FlaskClient, classifier: str) -> None:
    """Pillow uses the last header: it would decompress 30,000 by 30,000 pixels."""
    small, large = (struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0) for side in (28, 30_000))
    rows = chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    for headers in ([small, large], [small, small]):
        bomb = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(b"IHDR", header) for header in headers) + rows
        problem = post(client, classifier, "predict", 422, images=[base64.b64encode(bomb).decode()])
        assert problem["errors"][0]["detail"] == "is a damaged PNG"


def test_a_png_without_its_palette_is_damaged(client: FlaskClient, classifier: str) -> None:
    no_palette = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 3, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\0\0"))
        + chunk(b"IEND", b"")
    )
    problem = post(client, classifier, "predict", 422, images=[base64.b64encode(no_palette).decode()])
    assert problem["errors"][0]["detail"] == "is a damaged PNG"


def test_a_drawing_too_faint_to_measure_is_treated_as_empty(client: FlaskClient, classifier: str) -> None:
    faint = np.zeros((28, 28))
    faint[3, 4] = 1e-320
    answers = [
        post(client, classifier, "predict", 200, images=[image.tolist()], fit=True)["probabilities"]
        for image in (faint, np.zeros((28, 28)))
    ]
    assert answers[0] == answers[1]


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_faults_of_a_predict_request_are_named(client: FlaskClient, classifier: str) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "#/images"),
        ({"images": []}, "#/images"),
        ({"images": ["x"] * 257}, "#/images"),
        ({"images": ["x"], "checkpoint": "newest"}, "#/checkpoint"),
        ({"images": ["x"], "checkpoint": 0}, "#/checkpoint"),
        ({"images": ["x"], "invrt": True}, "#/invrt"),
        ({"images": [png(np.zeros((2048, 2048), np.uint8))] * 5}, "#/images"),
    ]
    for body, pointer in cases:
        problem = post(client, classifier, "predict", 422, **body)
        assert (problem["code"], pointer in pointers(problem)) == ("invalid_input", True), body
