"""Pictures that people send, as the networks see them: grey, of the data set's size, light on dark."""

import io
import re
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Levels = NDArray[np.float64]
"""(rows, columns), from 0 (black) to 255."""

_INK = 0.1
"""What counts as drawn, as a share of the lightest pixel."""
_BOX = 20 / 28
"""Of a side of MNIST's pictures, what the digit may take (LeCun et al. 1998, appendix of yann.lecun.com/exdb/mnist)."""


class UnreadablePicture(ValueError):
    """The bytes are no PNG that is read here; the message says why."""


def read_png(data: bytes, *, max_side: int, invert: bool = False) -> Levels:
    """The grey levels of a PNG.

    What is transparent counts as background: black, or with ``invert`` white, which becomes black.

    Raises:
        UnreadablePicture: it is no PNG, broken, or larger than ``max_side`` along a side. The size is looked at before
            anything is unpacked.
    """
    header = re.match(rb"\x89PNG\r\n\x1a\n....IHDR(.{4})(.{4})", data, re.DOTALL)
    if header is None:
        raise UnreadablePicture("is not a PNG")
    width, height = (int.from_bytes(size) for size in header.groups())
    if max(width, height) > max_side:
        raise UnreadablePicture(f"has {width} x {height} pixels; at most {max_side} along a side are read")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
            levels = _grey(image, background=255 if invert else 0)
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise UnreadablePicture("is a broken PNG") from error
    return 255 - levels if invert else levels


def _grey(image: Image.Image, *, background: int) -> Levels:
    if image.mode.startswith("I"):  # sixteen bits, which convert() would cut off instead of scaling
        return np.asarray(image, np.float64) / 257
    if image.has_transparency_data:
        below = Image.new("RGBA", image.size, (background, background, background, 255))
        image = Image.alpha_composite(below, image.convert("RGBA"))
    return np.asarray(image.convert("L"), np.float64)


def resized(levels: Levels, shape: tuple[int, int]) -> Levels:
    """The picture in (rows, columns), its sides scaled each by itself; as it is where it has them already."""
    if levels.shape == shape:
        return levels
    image = Image.fromarray(levels.astype(np.float32))
    # Where it gets smaller, pillow takes the mean of all the pixels that one covers.
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR), np.float64)


def fitted(levels: Levels, shape: tuple[int, int]) -> Levels:
    """The drawing cut out, scaled into MNIST's box, and moved so that its centre of mass is in the middle.

    The sides keep their proportion. A picture on which nothing is drawn stays empty.
    """
    result = np.zeros(shape)
    ink = levels > _INK * levels.max(initial=0)
    if not ink.any():
        return result
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    cut = levels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    factor = min(_BOX * side / size for side, size in zip(shape, cut.shape, strict=True))
    small = resized(cut, (max(round(cut.shape[0] * factor), 1), max(round(cut.shape[1] * factor), 1)))
    total = small.sum()
    for axis, side in enumerate(shape):
        centre = (np.arange(small.shape[axis]) + 0.5) @ small.sum(axis=1 - axis) / total
        # It fits in any case: a box that lies off the middle is moved back inside.
        start = min(max(round(side / 2 - centre), 0), side - small.shape[axis])
        if axis == 0:
            top = start
        else:
            left = start
    result[top : top + small.shape[0], left : left + small.shape[1]] = small
    return result
