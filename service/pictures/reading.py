"""Converts pictures sent by users into network inputs: the dataset's size, grey or colour, light on dark."""

import io
import struct
import warnings
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tapeline.images.decoding import PILLOW_RAISES, fitted

PixelValues = NDArray[np.floating]
"""(rows, columns), in colour (rows, columns, 3), from 0 (black) to 255."""

MAX_DECODED_PIXELS: Final = 2**24
"""Maximum number of pixels that Pillow decodes in this process, regardless of the header of a file."""
Image.MAX_IMAGE_PIXELS = MAX_DECODED_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)

OTHER_FORMATS: Final = (b"\xff\xd8\xff", b"RIFF", b"BM", b"GIF8")
"""Magic bytes of JPEG, WebP, BMP and GIF files, which are not decoded in this process."""
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PALETTE: Final = 3
_PIXEL_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
"""Chunks that the pixels need. All others (text, profiles, animations) are dropped before Pillow reads the file."""
_ORIENTATION: Final = 0x0112
_SHORT: Final = 3
_MAX_TAGS: Final = 100

_COLOUR_AXES: Final = 3
_LUMA: Final = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in a grey level (ITU-R BT.601), as in Pillow."""
_INK_THRESHOLD = 0.1
"""Threshold of the pixels that belong to a drawing, relative to the lightest pixel."""
_MAX_DIGIT_SHARE = 20 / 28
"""Maximum size of a digit relative to the side of an MNIST image (LeCun et al. 1998, yann.lecun.com/exdb/mnist)."""


class UnreadablePicture(ValueError):
    """The bytes are not a readable PNG; the message gives the reason."""


def read_png(data: bytes, *, max_side: int, invert: bool = False, colour: bool = False) -> PixelValues:
    """The levels of a PNG, converted to grey or colour, and turned upright according to its EXIF data.

    Transparent areas become background: black, or with ``invert`` white, which is then inverted to black.

    Raises:
        UnreadablePicture: not a PNG, damaged, or a side longer than ``max_side``. The size is checked before
            pixels are decoded.
    """
    size = png_size(data, max_side=max_side)
    stripped = _strip_png(data)
    try:
        with Image.open(io.BytesIO(stripped), formats=["PNG"]) as image:
            if image.size != size:
                raise UnreadablePicture("is a damaged PNG")
            image.load()
            image.getexif()[_ORIENTATION] = _orientation(data)
            levels = _levels(ImageOps.exif_transpose(image), background=255 if invert else 0, colour=colour)
    except PILLOW_RAISES as error:
        raise UnreadablePicture("is a damaged PNG") from error
    return 255 - levels if invert else levels


def png_size(data: bytes, *, max_side: int) -> tuple[int, int]:
    """Width and height from the header of a PNG, without decoding pixels.

    Raises:
        UnreadablePicture: not a PNG, or a side longer than ``max_side``.
    """
    if len(data) < 33 or not data.startswith(_SIGNATURE) or data[8:16] != b"\0\0\0\x0dIHDR":
        raise UnreadablePicture("is not a PNG, JPEG, WebP, BMP or GIF image")
    width, height = struct.unpack(">II", data[16:24])
    if max(width, height) > max_side:
        raise UnreadablePicture(f"has {width} x {height} pixels; at most {max_side} per side are allowed")
    return width, height


def _strip_png(data: bytes) -> bytes:
    """The PNG with only the chunks for its pixels, so that Pillow reads exactly the header that was checked.

    Raises:
        UnreadablePicture: the chunks are not those of a valid PNG, for example two headers or a missing
            palette.
    """
    output, names = [_SIGNATURE], []
    for name, chunk in _chunks(data):
        if name in _PIXEL_CHUNKS:
            output.append(chunk)
            names.append(name)
        elif not name[0] & 0x20:  # uppercase: a critical chunk, without which the picture cannot be decoded
            raise UnreadablePicture("is a damaged PNG")
    required = {b"IHDR", b"IDAT", b"IEND"} | ({b"PLTE"} if data[25] == _PALETTE else set())
    unrepeatable = [name for name in names if name != b"IDAT"]
    if not required <= set(names) or names[0] != b"IHDR" or len(set(unrepeatable)) < len(unrepeatable):
        raise UnreadablePicture("is a damaged PNG")
    return b"".join(output)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and bytes of each chunk, up to the end of the picture; trailing data is ignored."""
    start, name = len(_SIGNATURE), b""
    while name != b"IEND":
        length = int.from_bytes(data[start : start + 4])
        name = data[start + 4 : start + 8]
        end = start + 12 + length
        if len(name) < 4 or end > len(data):
            raise UnreadablePicture("is a damaged PNG")
        yield name, data[start:end]
        start = end


def _orientation(data: bytes) -> int:
    """The orientation in a PNG's EXIF chunk; 1 (upright) if there is none. Parses only this tag, because Pillow's EXIF
    reader would parse all of them."""
    exif = next((chunk[8:-4] for name, chunk in _chunks(data) if name == b"eXIf"), b"")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4], "")
    if not order:
        return 1
    try:
        (offset,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, offset)
        for index in range(min(count, _MAX_TAGS)):
            tag, kind, value_count, value = struct.unpack_from(f"{order}HHIH", exif, offset + 2 + 12 * index)
            if (tag, kind, value_count) == (_ORIENTATION, _SHORT, 1):
                return int(value)
    except struct.error:  # it ends too early
        pass
    return 1


def _levels(image: Image.Image, *, background: int, colour: bool) -> PixelValues:
    if image.mode.startswith("I"):  # 16 bits: convert() would clip the values instead of scaling them
        return convert_channels(np.asarray(image, np.float32) / 257, colour=colour)
    if image.has_transparency_data:
        backdrop = Image.new("RGBA", image.size, (background, background, background, 255))
        image = Image.alpha_composite(backdrop, image.convert("RGBA"))
    return np.asarray(image.convert("RGB" if colour else "L"), np.float32)


def convert_channels(levels: PixelValues, *, colour: bool) -> PixelValues:
    """The picture, converted to grey or colour."""
    if colour == (levels.ndim == _COLOUR_AXES):
        return levels
    return np.repeat(levels[:, :, None], 3, axis=2) if colour else levels @ _LUMA


def prepare_as_imported(
    levels: PixelValues, shape: tuple[int, int], *, colour: bool, pads: bool = False
) -> PixelValues:
    """The picture, fitted to (rows, columns) and converted to grey or colour, by the operations of an import from image
    files."""
    becomes_grey = levels.ndim == _COLOUR_AXES and not colour
    if levels.shape[:2] != shape or becomes_grey:
        image = Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))
        image = fitted(image, shape[::-1], pads=pads)
        levels = np.asarray(image.convert("L") if becomes_grey else image, np.float64)
    return convert_channels(levels, colour=colour)


def resize(levels: PixelValues, shape: tuple[int, int]) -> PixelValues:
    """The picture stretched to (rows, columns); unchanged if it already has this size."""
    if levels.shape[:2] == shape:
        return levels
    if levels.ndim == _COLOUR_AXES:
        return np.stack([resize(levels[:, :, channel], shape) for channel in range(3)], axis=2)
    image = Image.fromarray(np.asarray(levels, np.float32))
    # When shrinking, Pillow takes the mean of all pixels that an output pixel covers.
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR), np.float64)


def centre_drawing(levels: PixelValues, shape: tuple[int, int]) -> PixelValues:
    """The drawing, cropped, scaled to MNIST's box, and moved so that its centre of mass is in the middle.

    The aspect ratio is kept. An empty picture stays empty.
    """
    result = np.zeros(shape)
    ink = levels > _INK_THRESHOLD * levels.max(initial=0)
    if not ink.any():
        return result
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    cropped = levels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    factor = min(_MAX_DIGIT_SHARE * side / size for side, size in zip(shape, cropped.shape, strict=True))
    small = resize(cropped, (max(round(cropped.shape[0] * factor), 1), max(round(cropped.shape[1] * factor), 1)))
    total = small.sum()
    if not total > 0:  # too faint for single precision
        return result
    for axis, side in enumerate(shape):
        centre = (np.arange(small.shape[axis]) + 0.5) @ small.sum(axis=1 - axis) / total
        # The drawing always fits: a box that would leave the picture is moved back inside.
        start = min(max(round(side / 2 - centre), 0), side - small.shape[axis])
        if axis == 0:
            top = start
        else:
            left = start
    result[top : top + small.shape[0], left : left + small.shape[1]] = small
    return result
