"""Decodes image files with Pillow: upright, scaled, in grey or in colour."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final

from tapeline.errors import MissingPackage, UnreadableImage
from tapeline.images.files import SIGNATURE_BYTES, Size, unreadable_reason

try:
    from PIL import BmpImagePlugin, GifImagePlugin, Image, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
except ModuleNotFoundError as error:  # the wheel of the client alone
    raise MissingPackage("pillow", "reading image files") from error

MAX_IMAGE_PIXELS: Final = 2**25
"""Maximum number of pixels of an image before scaling."""
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
MAX_SCANS: Final = 100
"""Maximum number of scans of an image. Programs write about ten, and at most a few dozen."""
MAX_SEGMENTS: Final = 10_000
"""Maximum number of segments that are looked at; a photo with its metadata has a few hundred at most."""
_JPEG: Final = b"\xff\xd8\xff"
_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A marker as libjpeg finds it, also after compressed data: there, FF 00 is a byte, and RST0 to RST7 end no scan."""
_SOS: Final = 0xDA
_EOI: Final = 0xD9
_WITHOUT_LENGTH: Final = frozenset({0x01, 0xD8})

_ORIENTATION: Final = 0x0112
_SIDEWAYS: Final = frozenset({5, 6, 7, 8})
"""EXIF orientations that swap width and height."""
_GREY_MODES: Final = frozenset({"1", "L", "LA", "La"})
PILLOW_RAISES: Final = (
    OSError, SyntaxError, ValueError, LookupError, TypeError, AttributeError, EOFError, OverflowError, struct.error,
    zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""Errors that Pillow was observed to raise for damaged files."""


@contextmanager
def open_image(file: IO[bytes], *, max_pixels: int = MAX_IMAGE_PIXELS) -> Iterator[Image.Image]:
    """Open an image: reads the header, but no pixels. Of a JPEG, the scans are counted.

    Raises:
        UnreadableImage: not an image, damaged, too large, or in too many scans; also if the block fails on damaged
            pixels.
    """
    try:
        is_jpeg = file.read(len(_JPEG)) == _JPEG
        file.seek(0)
        if is_jpeg and (reason := jpeg_refusal(file.read())):
            raise UnreadableImage(reason)
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged metadata; the number of pixels is limited here
            with _identify(file, max_pixels) as image:
                yield image
    except UnreadableImage:
        raise
    except MemoryError as error:
        raise UnreadableImage("takes too much memory to decode; scale it down") from error
    except PILLOW_RAISES as error:
        raise UnreadableImage("is truncated or damaged") from error


def upright_size(image: Image.Image) -> Size:
    """Width and height after applying the EXIF orientation."""
    return (image.height, image.width) if _is_sideways(image) else image.size


def pixels_of(image: Image.Image, size: Size | None, *, grey: bool, pads: bool = False) -> Image.Image:
    """The upright pixels, in mode ``L`` or, unless ``grey``, in mode ``RGB`` if the image may have colours.

    The image is fitted to ``size``. Transparent areas become black, as in ``/predict``. Of an
    animation, the first frame is used.
    """
    if size is not None:  # lets Pillow decode a JPEG at half the size or less
        image.draft("RGB", size[::-1] if _is_sideways(image) else size)
    converted = _as_grey_or_rgb(ImageOps.exif_transpose(image), grey=grey)
    return converted if size is None else fitted(converted, size, pads=pads)


def fitted(image: Image.Image, size: Size, *, pads: bool) -> Image.Image:
    """The image scaled to cover ``size`` and centre-cropped or, with ``pads``, scaled into it with black borders."""
    if image.size == size:
        return image
    if pads:
        return ImageOps.pad(image, size, Image.Resampling.BOX, color="black")
    return ImageOps.fit(image, size, Image.Resampling.BOX)


def convert_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit levels to 8 bits, so that 65535 becomes 255. ``convert("L")`` alone would clip them.

    The result is rounded: 257 is odd, so no level lies halfway between two results. ``point`` accepts only a linear
    function of 32-bit levels.
    """
    return image.convert("I").point(lambda level: level * (1 / 257) + 0.5).convert("L")


def decode(file: IO[bytes], size: Size | None, *, grey: bool, pads: bool = False) -> Image.Image:
    """Decode a file with ``pixels_of``.

    Raises:
        UnreadableImage: not an image, damaged, or too large.
    """
    with open_image(file) as image:
        return pixels_of(image, size, grey=grey, pads=pads)


def _identify(file: IO[bytes], max_pixels: int) -> Image.Image:
    try:
        image = Image.open(file, formats=[name for name in _FORMATS if name])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(f"has too many pixels; at most {max_pixels:,} are read: scale it down") from error
    except PILLOW_RAISES as error:
        file.seek(0)
        raise UnreadableImage(unreadable_reason(file.read(SIGNATURE_BYTES))) from error
    if image.width * image.height > max_pixels:
        pixels = f"{image.width} x {image.height}; at most {max_pixels:,} are read: scale it down"
        raise UnreadableImage(f"has too many pixels, {pixels}")
    return image


def _is_sideways(image: Image.Image) -> bool:
    return image.getexif().get(_ORIENTATION) in _SIDEWAYS


def _as_grey_or_rgb(image: Image.Image, *, grey: bool) -> Image.Image:
    if image.mode.startswith("I"):
        return convert_to_8_bits(image)
    mode = "L" if grey or image.mode in _GREY_MODES else "RGB"
    if image.has_transparency_data:
        backdrop = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(backdrop, image.convert("RGBA"))
    return image.convert(mode)


def jpeg_refusal(jpeg: bytes) -> str:
    """Why a JPEG is not decoded, if it has too many scans or segments; empty if it has not.

    A progressive JPEG is decoded scan by scan, and each passes over the whole image, even if it has no data: a small
    file with thousands of scans takes minutes. Of the other formats, an interlaced PNG always has seven passes and a
    GIF four. A scan begins with the marker SOS, outside of other segments and of compressed data.
    """
    position = scans = segments = 0
    while match := _MARKER.search(jpeg, position):
        marker, position = jpeg[match.end() - 1], match.end()
        if marker == _EOI:
            break
        if marker in _WITHOUT_LENGTH:
            continue
        segments, scans = segments + 1, scans + (marker == _SOS)
        if scans > MAX_SCANS:
            return f"has more than {MAX_SCANS} scans; save it again, as a JPEG that is not progressive"
        if segments > MAX_SEGMENTS:
            return f"has more than {MAX_SEGMENTS:,} segments; save it again"
        position += max(2, int.from_bytes(jpeg[position : position + 2], "big"))
    return ""
