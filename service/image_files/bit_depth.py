"""The conversion of images with 16 bits per pixel, for the service and its client.

It does not import Pillow, which the client loads only when needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def convert_to_8_bits(image: Image) -> Image:
    """Scale 16-bit levels to 8 bits, so that 65535 becomes 255. ``convert("L")`` alone would clip them.

    The result is rounded: 257 is odd, so no level lies halfway between two results. ``point`` accepts only a linear
    function of 32-bit levels.
    """
    return image.convert("I").point(lambda level: level * (1 / 257) + 0.5).convert("L")
