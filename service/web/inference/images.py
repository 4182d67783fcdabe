"""Converts the images of a request into network inputs."""

from __future__ import annotations

import base64
import binascii
import math
import re
import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.application.inference_requests import MAX_PHOTO_PIXELS, MAX_PIXELS, PredictRequest
from service.datasets.image_sandbox import decode_in_sandbox
from service.datasets.info import DatasetInfo
from service.errors import Fault
from service.image_files.decoding import UnreadableImage
from service.pictures import reading
from service.spec.sent_images import MAX_SIDE
from service.web.middleware import problems
from service.web.middleware.problems import Problem

_DATA_URL: Final = re.compile(r"^data:image/(?:png|jpeg|webp|bmp|gif);base64,")
_decoding: Final = threading.BoundedSemaphore(2)
"""Limits concurrent decoding: the largest image needs up to 70 MB."""

Levels = NDArray[np.float64]


def levels_of(images: Sequence[Any], asked: PredictRequest, info: DatasetInfo) -> Levels:
    """The images as levels from 0 to 255 (n, rows, columns) or (n, rows, columns, 3), in the shape of the dataset.

    If the dataset was imported from image files, each is prepared as the import does it.

    Raises:
        Problem: some cannot be read; the problem names each.
    """
    shape, colour = (info.image_shape[0], info.image_shape[1]), len(info.image_shape) > 2
    # An import that detects whether there are colours scales before it converts to grey.
    decodes_colour = colour or info.detects_colours
    crops = info.is_photos or (asked.fit and colour)
    fit = reading.fitted if asked.fit and not crops else reading.resized

    def prepared(decoded: reading.Levels) -> reading.Levels:
        if crops:
            return reading.as_imported(decoded, shape, colour=colour)
        return fit(reading.converted(decoded, colour=colour), shape)

    levels: dict[int, reading.Levels] = {}
    faults: dict[int, str] = {}
    others: dict[int, bytes] = {}
    pixels = 0
    with _decoding:
        for number, image in enumerate(images):
            try:
                data = _decoded(image) if isinstance(image, str) else image
                if isinstance(data, bytes) and data.startswith(reading.OTHER_FORMATS):
                    others[number] = data
                    continue
                # Pixels are counted from the headers, before decoding.
                pixels += math.prod(reading.png_size(data, max_side=MAX_SIDE)) if isinstance(data, bytes) else 0
                if pixels > MAX_PIXELS:
                    raise too_much("#/images", f"the first {number + 1} have {pixels:,} pixels", MAX_PIXELS)
                levels[number] = prepared(_sent(data, asked, shape, colour=decodes_colour))
            except reading.UnreadablePicture as error:
                faults[number] = str(error)
        if others:
            cover = (shape[1], shape[0]) if crops else None
            found = decode_in_sandbox(
                list(others.values()),
                cover=cover,
                grey=not decodes_colour,
                max_pixels=MAX_PHOTO_PIXELS if cover else MAX_PIXELS,
            )
            for number, one in zip(others, found, strict=True):
                if isinstance(one, UnreadableImage):
                    faults[number] = str(one)
                else:
                    seen = one.astype(np.float64)
                    levels[number] = prepared(255 - seen if asked.invert else seen)
    if faults:
        raise problems.invalid_input(
            [
                Fault(pointer=f"#/images/{number}", detail=detail, code="unreadable_picture")
                for number, detail in sorted(faults.items())
            ]
        )
    return np.stack([levels[number] for number in range(len(images))])


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(_DATA_URL.sub("", text, count=1), validate=True)
    except (binascii.Error, ValueError) as error:
        raise reading.UnreadablePicture("is not base64") from error


def _sent(image: Any, asked: PredictRequest, shape: tuple[int, int], *, colour: bool) -> reading.Levels:
    if isinstance(image, bytes):
        return reading.read_png(image, max_side=MAX_SIDE, invert=asked.invert, colour=colour)
    return _from_numbers(image, asked, shape)


def _from_numbers(sent: Any, asked: PredictRequest, shape: tuple[int, int]) -> Levels:
    try:
        numbers = np.asarray(sent)
    except ValueError:  # ragged
        numbers = np.asarray(None)
    if numbers.dtype.kind not in "iuf":
        raise reading.UnreadablePicture("must be a PNG in base64, or rows of numbers of equal length")
    if numbers.ndim == 1 and numbers.size in (math.prod(shape), 3 * math.prod(shape)):
        numbers = numbers.reshape(shape if numbers.size == math.prod(shape) else (*shape, 3))
    has_colours = numbers.ndim == 3 and numbers.shape[2] == 3
    if not (numbers.ndim == 2 or has_colours) or not numbers.size or max(numbers.shape) > MAX_SIDE:
        size = f"{shape[0]} rows of {shape[1]} numbers, or of {shape[1]} triples (red, green, blue), or all in one list"
        raise reading.UnreadablePicture(f"must have {size}; it has the shape {list(numbers.shape)}")
    if not (numbers.min() >= 0 and numbers.max() <= 1):
        raise reading.UnreadablePicture("must have numbers in [0, 1], where 0 is black and 1 is white")
    levels = numbers.astype(np.float64) * 255
    return 255 - levels if asked.invert else levels


def too_much(pointer: str, what: str, most: int) -> Problem:
    """The problem that a part of a request exceeds a limit."""
    return problems.invalid_input(
        [Fault(pointer=pointer, detail=f"{what}; the maximum is {most}", code="out_of_range")]
    )
