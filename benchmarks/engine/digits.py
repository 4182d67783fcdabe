"""The digits that all variants use, and the networks of the preset ``classic``."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from engine import Dense, ImageData, Sequential, generator_for, initializers

FOLDER = Path(__file__).parents[2] / "service" / "data" / "mnist-10k"

CLASSIFIER = ((784, 392, "sigmoid"), (392, 10, "sigmoid"))
GENERATOR = ((100, 200, "tanh"), (200, 400, "tanh"), (400, 784, "tanh"))
DISCRIMINATOR = ((784, 400, "leaky_relu"), (400, 50, "leaky_relu"), (50, 1, "sigmoid"))

Sizes = tuple[tuple[int, int, str], ...]


def read(name: str) -> np.ndarray[Any, Any]:
    """An IDX file: two zero bytes, the type (8: bytes), the number of axes, their sizes, then the bytes."""
    data = gzip.decompress((FOLDER / f"{name}.gz").read_bytes())
    shape = np.frombuffer(data, ">u4", data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape([int(size) for size in shape])


def training() -> ImageData:
    """8,500 digits with pixels from -1 to 1, as in the preset ``classic``."""
    return ImageData(read("train-images-idx3-ubyte"), read("train-labels-idx1-ubyte"), (-1, 1))


def everything() -> ImageData:
    """All 10,000 digits."""
    parts = [(read(f"{part}-images-idx3-ubyte"), read(f"{part}-labels-idx1-ubyte")) for part in ("train", "t10k")]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return ImageData(images, labels, (-1, 1))


def network(sizes: Sizes, purpose: str) -> Sequential:
    """A network of dense layers of these sizes, always with the same weights."""
    rng, draw = generator_for(0, purpose), initializers.uniform(0.01)
    return Sequential([Dense(i, units, activation, rng=rng, initializer=draw) for i, units, activation in sizes])
