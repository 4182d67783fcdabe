"""Conversion of images for requests: small files are sent unchanged, others as PNGs."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tapeline.errors import UnreadableImage
from tapeline.images.files import (
    SENT_SIDE,
    SENT_UNCHANGED_PIXELS,
    format_of_name,
    is_sent_unchanged,
    unsupported_message,
)

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
MAX_PIXELS: Final = 80_000_000
_REQUEST_CHARACTERS: Final = 960_000
"""Maximum base64 characters per request, whose body is limited to 1 MiB."""
_REQUEST_IMAGES: Final = 256
_PNG: Final = b"\x89PNG\r\n\x1a\n"


GivenImage = str | os.PathLike[str] | bytes | Sequence[Any]
"""A path, an image in base64, the bytes of an image file, or rows of numbers."""


class Encoded(NamedTuple):
    """An image in the form of a request: a file in base64, or rows of numbers."""

    content: Any
    pixels: int = 0
    """Of a file."""


def encoded(image: GivenImage) -> Encoded:
    """An image in the form of a request.

    Files of up to 700 kB are sent unchanged, so that the service decodes them in the same way as those of a dataset.

    Raises:
        UnreadableImage: the bytes are not a supported image, or broken, or too large.
        OSError: the file cannot be read.
    """
    if isinstance(image, str) and _is_base64(image):
        return Encoded(image)
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        if isinstance(image, str) and not os.path.isfile(image):  # Path.is_file raises for a text of any length
            raise FileNotFoundError(f"{image[:80]!r} is neither a file nor an image in base64")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UnreadableImage(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB")
        return _encode_file(path.read_bytes(), name=str(path))
    if isinstance(image, bytes):
        return _encode_file(image)
    return Encoded(image)


def _is_base64(text: str) -> bool:
    try:
        return text.startswith("data:") or bool(base64.b64decode(text, validate=True))
    except ValueError:
        return False


def _encode_file(data: bytes, name: str = "the image") -> Encoded:
    content, pixels = sent_form(data, name=name)
    return Encoded(base64.b64encode(content).decode(), pixels)


def in_requests(images: Sequence[Encoded]) -> Iterator[list[Any]]:
    """Split images into as few requests as possible, at least one."""
    batch: list[Any] = []
    characters = pixels = 0
    for image in images:
        image_characters = len(image.content) if isinstance(image.content, str) else 0
        is_full = characters + image_characters > _REQUEST_CHARACTERS or pixels + image.pixels > SENT_UNCHANGED_PIXELS
        if batch and (is_full or len(batch) == _REQUEST_IMAGES):
            yield batch
            batch, characters, pixels = [], 0, 0
        batch.append(image.content)
        characters += image_characters
        pixels += image.pixels
    yield batch


def sent_form(data: bytes, *, name: str = "the image") -> tuple[bytes, int]:
    """A supported image as it is sent, and its number of pixels: as it is, or if it is large, as a small PNG."""
    if (size := _png_size(data)) and is_sent_unchanged(len(data), *size, is_png=True):
        return data, math.prod(size)
    with _open_image(data, name) as image:
        if is_sent_unchanged(len(data), *image.size, is_png=image.format == "PNG"):
            pixels = math.prod(image.size)
            image.draft(None, (SENT_SIDE, SENT_SIDE))
            image.load()  # to detect a broken file
            return data, pixels
    png = as_png(data, name=name)
    return png, SENT_SIDE**2


def as_png(data: bytes, *, name: str = "the image") -> bytes:
    """A supported image as a PNG of at most ``SENT_SIDE`` pixels along a side, upright as its EXIF data says.

    An animation is represented by its first frame.
    """
    with _open_image(data, name) as image:
        image.draft(None, (2 * SENT_SIDE, 2 * SENT_SIDE))  # a JPEG is scaled down while it is decoded
        return upright_png(image, side=SENT_SIDE)


def upright_png(image: Image, *, side: int | None = None) -> bytes:
    """An image of Pillow as a PNG, upright as its EXIF data says, of at most ``side`` pixels along a side.

    Raises:
        UnreadableImage: its levels are floats, of which nothing says which one is white.
    """
    from PIL import Image, ImageOps  # lazily: it takes a tenth of a second, and most commands do not need it

    if image.mode == "F":
        raise UnreadableImage("an image of mode F has levels without a known range: give an array of numbers in [0, 1]")
    converted = _in_supported_mode(ImageOps.exif_transpose(image))
    if side is not None:
        converted.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=None)
    file = io.BytesIO()
    converted.save(file, "PNG")
    return file.getvalue()


@contextmanager
def _open_image(data: bytes, name: str) -> Iterator[Image]:
    """Open an image, reading only its header; errors that are raised in the block name the image."""
    from tapeline.images.decoding import open_image

    try:
        with open_image(io.BytesIO(data), max_pixels=MAX_PIXELS) as image:
            yield image
    except UnreadableImage as error:
        reason = unsupported_message(unread) if (unread := format_of_name(name)) else error
        raise UnreadableImage(f"{name} {reason}") from None


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from the header of a PNG; ``None`` for another file."""
    if not data.startswith(_PNG) or len(data) < 24:
        return None
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def _in_supported_mode(image: Image) -> Image:
    """Convert to a mode that PNG and the service support, with transparency if the image has it."""
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image
    if image.mode.startswith("I"):
        from tapeline.images.decoding import convert_to_8_bits

        return convert_to_8_bits(image)
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("L" if image.mode == "1" else "RGB")
