"""Sizes that images are scaled to."""

from __future__ import annotations

import re
from typing import Final

Size = tuple[int, int]
"""Width and height in pixels, in the order that image programs use."""

_SIZE: Final = re.compile(r"([1-9]\d{0,3})(?:x([1-9]\d{0,3}))?")


def parse_size(text: str) -> Size:
    """Parse ``32`` or ``32x24`` (width x height).

    Raises:
        ValueError: neither of these.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a size: write 32, or 32x24 for width x height")
    width = int(match[1])
    return width, int(match[2] or width)
