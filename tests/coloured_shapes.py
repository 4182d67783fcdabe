"""A test dataset: images of three shapes in four colours (twelve classes), in class folders.

The grey level of a shape is drawn from the same range for every colour, so it says nothing about the colour:
a network that sees only grey is right in a quarter of the cases at most.

``python -m tests.coloured_shapes shapes.zip`` writes an archive.
"""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

SHAPES: Final = ("circle", "square", "triangle")
COLOURS: Final = {
    "red": (1.0, 0.2, 0.2),
    "green": (0.2, 1.0, 0.2),
    "blue": (0.35, 0.35, 1.0),
    "yellow": (1.0, 1.0, 0.2),
}
CLASSES: Final = tuple(f"{colour}-{shape}" for colour in COLOURS for shape in SHAPES)
MAX_GREY_ACCURACY: Final = 1 / len(COLOURS)
"""The best accuracy possible in grey, with every shape recognised."""
_LUMA: Final = (0.299, 0.587, 0.114)
_LEVELS: Final = (70.0, 104.0)
"""Range of the grey levels of shapes."""


def iter_images(count: int, side: int = 32, seed: int = 0) -> Iterator[tuple[str, Image.Image]]:
    """Yield pairs of class name and image, cycling through the classes."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        name = CLASSES[index % len(CLASSES)]
        colour, shape = name.split("-")
        yield name, _image(rng, colour, shape, side)


def write_archive(path: Path, count: int = 6_000, *, side: int = 32, seed: int = 0) -> Path:
    """Write a zip file of PNGs in class folders and return its path."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for index, (name, image) in enumerate(iter_images(count, side, seed)):
            data = io.BytesIO()
            image.save(data, "PNG")
            file.writestr(f"shapes/{name}/{index:05d}.png", data.getvalue())
    return path


def _image(rng: np.random.Generator, colour: str, shape: str, side: int) -> Image.Image:
    dark = rng.random() < 0.5
    level = rng.uniform(10, 50) if dark else rng.uniform(140, 200)
    background = np.clip(level + rng.uniform(-10, 10, 3) + rng.normal(0, 12, (side, side, 3)), 0, 255)
    image = Image.fromarray(np.asarray(background, np.uint8))
    tint = np.array(COLOURS[colour])
    fill = tuple(int(channel) for channel in np.clip(tint * rng.uniform(*_LEVELS) / (tint @ _LUMA), 0, 255))
    radius = rng.uniform(0.2, 0.36) * side
    x, y = rng.uniform(radius, side - radius, 2)
    draw = ImageDraw.Draw(image)
    match shape:
        case "circle":
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
        case "square":
            half_side = 0.8 * radius
            draw.rectangle((x - half_side, y - half_side, x + half_side, y + half_side), fill=fill)
        case _:
            draw.regular_polygon((x, y, radius), 3, fill=fill)
    return image


if __name__ == "__main__":
    write_archive(Path(sys.argv[1]))
