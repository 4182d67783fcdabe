"""The conversion of images with 16 bits per pixel, for the service and its client. Loads no Pillow of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def convert_to_8_bits(image: Image) -> Image:
    """Scale 16-bit levels to 8 bits, so that 65535 becomes 255. ``convert("L")`` alone would clip them.

    The result is rounded: 257 is odd, so no level lies halfway between two results.
    """
    return image.convert("I").point(lambda level: level * (1 / 257) + 0.5).convert("L")
