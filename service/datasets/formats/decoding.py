"""Decodes image files: upright, scaled, in grey or in colour. Pillow only."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from service.datasets.info import Size

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".jpe", ".webp", ".bmp", ".gif")
MAX_IMAGE_PIXELS: Final = 2**25
"""The most pixels of one image in the archive, before it is scaled."""
_FORMATS: Final = tuple(
    plugin.format
    for plugin in (
        PngImagePlugin.PngImageFile,
        JpegImagePlugin.JpegImageFile,
        WebPImagePlugin.WebPImageFile,
        BmpImagePlugin.BmpImageFile,
        GifImagePlugin.GifImageFile,
    )
)
_ORIENTATION: Final = 0x0112
_SIDEWAYS: Final = frozenset({5, 6, 7, 8})
"""Values of EXIF's orientation that exchange width and height."""
_GREY_MODES: Final = frozenset({"1", "L", "LA", "La"})
_PILLOW_RAISES: Final = (
    OSError, SyntaxError, ValueError, LookupError, TypeError, AttributeError, EOFError, OverflowError, struct.error,
    zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""On broken files, by what its readers were seen to do."""


class UnreadableImage(ValueError):
    """A file is no image that is read here; the message says why."""


@contextmanager
def opened(file: IO[bytes]) -> Iterator[Image.Image]:
    """An image whose header is read; its pixels are not.

    Raises:
        UnreadableImage: it is none, damaged, or too large; also for what the block raises on damaged pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks about damaged metadata; pixels are limited here
            with _identified(file) as image:
                yield image
    except UnreadableImage:
        raise
    except MemoryError as error:
        raise UnreadableImage("takes too much memory to decode; scale it down") from error
    except _PILLOW_RAISES as error:
        raise UnreadableImage("is truncated or damaged") from error


def upright_size(image: Image.Image) -> Size:
    """Width and height after it is turned as its EXIF data says."""
    return (image.height, image.width) if _is_sideways(image) else image.size


def pixels_of(image: Image.Image, size: Size | None, *, grey: bool) -> Image.Image:
    """The pixels upright, in the mode ``L`` or, unless ``grey``, ``RGB`` for what may have colours.

    ``size`` is covered, and what juts out is cut off evenly. Transparent parts are black, as in ``/predict``. Of an
    animation the first frame is taken.
    """
    if size is not None:  # a JPEG is unpacked at a half or less
        image.draft("RGB", size[::-1] if _is_sideways(image) else size)
    plain = _plain(ImageOps.exif_transpose(image), grey=grey)
    return plain if size is None or plain.size == size else ImageOps.fit(plain, size, Image.Resampling.BOX)


def decode(file: IO[bytes], size: Size | None, *, grey: bool) -> Image.Image:
    """A whole file by ``pixels_of``.

    Raises:
        UnreadableImage: it is none, damaged, or too large.
    """
    with opened(file) as image:
        return pixels_of(image, size, grey=grey)


def _identified(file: IO[bytes]) -> Image.Image:
    try:
        image = Image.open(file, formats=[name for name in _FORMATS if name])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(f"has too many pixels; at most {MAX_IMAGE_PIXELS:,} are read: scale it down") from error
    except _PILLOW_RAISES as error:
        raise UnreadableImage("is not a PNG, JPEG, WebP, BMP or GIF image") from error
    if image.width * image.height > MAX_IMAGE_PIXELS:
        pixels = f"{image.width} x {image.height}; at most {MAX_IMAGE_PIXELS:,} are read: scale it down"
        raise UnreadableImage(f"has too many pixels, {pixels}")
    return image


def _is_sideways(image: Image.Image) -> bool:
    return image.getexif().get(_ORIENTATION) in _SIDEWAYS


def _plain(image: Image.Image, *, grey: bool) -> Image.Image:
    if image.mode.startswith("I"):  # sixteen bits, which convert() would cut off instead of scaling
        levels = np.asarray(image, np.float32) / 257
        return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))
    mode = "L" if grey or image.mode in _GREY_MODES else "RGB"
    if image.has_transparency_data:
        below = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(below, image.convert("RGBA"))
    return image.convert(mode)
