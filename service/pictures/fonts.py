"""Fonts for the captions of images."""

import functools
from collections.abc import Iterable
from importlib.metadata import distribution
from typing import Final

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_DEJAVU: Final = "matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf"
"""A font with Latin, Greek, Cyrillic and more. It is part of matplotlib, which is not imported for it."""
_DEJAVU_SIZE: Final = 0.85
"""The size at which its letters are as wide as those of Pillow's font."""


def font_for(texts: Iterable[str], size: int) -> Font:
    """A font of about this size that has the letters of all texts: Pillow's own has those of ASCII only."""
    if all(text.isascii() for text in texts):
        return ImageFont.load_default(size)
    return _dejavu(round(size * _DEJAVU_SIZE))


@functools.lru_cache
def _dejavu(size: int) -> Font:
    return ImageFont.truetype(str(distribution("matplotlib").locate_file(_DEJAVU)), size)
