"""Converts the images of a request into network inputs."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.application.models import MAX_PHOTO_PIXELS, MAX_PIXELS, PredictRequest
from service.datasets.info import DatasetInfo
from service.datasets.sandbox import decode_in_sandbox
from service.errors import Fault
from service.pictures import reading
from service.web.http import problems, slots
from service.web.http.problems import Problem
from tapeline.errors import UnreadableImage
from tapeline.images.files import MAX_SIDE

_DATA_URL: Final = re.compile(r"^data:image/(?:png|jpeg|webp|bmp|gif);base64,")

PixelValues = NDArray[np.float64]


def pixel_values_of(images: Sequence[Any], request: PredictRequest, info: DatasetInfo) -> PixelValues:
    """The images as levels from 0 to 255 (n, rows, columns) or (n, rows, columns, 3), in the shape of the dataset.

    If the dataset was imported from image files, each image is prepared in the same way as by the import.

    Raises:
        Problem: some cannot be read; the problem names each.
    """
    shape, colour = (info.image_shape[0], info.image_shape[1]), len(info.image_shape) > 2
    # An import that detects whether there are colours scales before it converts to grey.
    decodes_colour = colour or info.detects_colours
    crops = info.is_photos or (request.fit and colour)
    resize = reading.centre_drawing if request.fit and not crops else reading.resize

    def prepare(decoded: reading.PixelValues) -> reading.PixelValues:
        if crops:
            return reading.prepare_as_imported(decoded, shape, colour=colour, pads=info.pads_photos)
        return resize(reading.convert_channels(decoded, colour=colour), shape)

    levels: dict[int, reading.PixelValues] = {}
    faults: dict[int, str] = {}
    pngs: dict[int, bytes] = {}
    other_files: dict[int, bytes] = {}
    for index, image in enumerate(images):
        try:
            data = _decode_base64(image) if isinstance(image, str) else image
            if isinstance(data, bytes):
                (other_files if data.startswith(reading.OTHER_FORMATS) else pngs)[index] = data
            else:
                levels[index] = prepare(_from_numbers(data, request, shape))
        except reading.UnreadablePicture as error:
            faults[index] = str(error)
    # Each format waits for slots of its own: a PNG is small and decoded quickly, numbers are not decoded at all.
    if pngs:
        with slots.hold(slots.PNG_DECODING):
            _check_pixels(pngs)
            for index, data in pngs.items():
                try:
                    png = reading.read_png(data, max_side=MAX_SIDE, invert=request.invert, colour=decodes_colour)
                    levels[index] = prepare(png)
                except reading.UnreadablePicture as error:
                    faults[index] = str(error)
    if other_files:
        size = (shape[1], shape[0]) if crops else None
        with slots.hold(slots.FILE_DECODING):
            decoded_images = decode_in_sandbox(
                list(other_files.values()),
                size=size,
                pads=info.pads_photos,
                grey=not decodes_colour,
                max_pixels=MAX_PHOTO_PIXELS if size else MAX_PIXELS,
            )
            for index, result in zip(other_files, decoded_images, strict=True):
                if isinstance(result, UnreadableImage):
                    faults[index] = str(result)
                else:
                    image_levels = result.astype(np.float32)
                    levels[index] = prepare(255 - image_levels if request.invert else image_levels)
    if faults:
        raise problems.invalid_input(
            [
                Fault(pointer=f"#/images/{index}", detail=detail, code="unreadable_picture")
                for index, detail in sorted(faults.items())
            ]
        )
    return np.stack([levels[index] for index in range(len(images))])


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(_DATA_URL.sub("", text, count=1), validate=True)
    except (binascii.Error, ValueError) as error:
        raise reading.UnreadablePicture("is not base64") from error


def _check_pixels(pngs: Mapping[int, bytes]) -> None:
    """Count the pixels of PNG files from their headers, before decoding.

    Raises:
        Problem: they have too many together.
    """
    pixels = 0
    for index, data in pngs.items():
        with suppress(reading.UnreadablePicture):
            pixels += math.prod(reading.png_size(data, max_side=MAX_SIDE))
        if pixels > MAX_PIXELS:
            raise too_much("#/images", f"the first {index + 1} have {pixels:,} pixels", MAX_PIXELS)


def _from_numbers(image: Any, request: PredictRequest, shape: tuple[int, int]) -> PixelValues:
    try:
        numbers = np.asarray(image)
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
    return 255 - levels if request.invert else levels


def too_much(pointer: str, excess: str, maximum: int) -> Problem:
    """The problem for a part of a request that exceeds a limit."""
    return problems.invalid_input(
        [Fault(pointer=pointer, detail=f"{excess}; the maximum is {maximum}", code="out_of_range")]
    )
