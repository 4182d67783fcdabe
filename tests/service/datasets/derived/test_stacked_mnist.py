"""Stacked MNIST: all modes are equally frequent, and each digit is a real one of the same part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from service.datasets.builtins import BUILT_IN
from service.datasets.cache import Dataset, load


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    """The digits and what is made of them."""
    root = tmp_path_factory.mktemp("stacked")
    digits, stacked = (load(name, root / "data", cache_root=root / "cache") for name in ("mnist-10k", "stacked-mnist"))
    return digits, stacked


def test_every_mode_is_as_frequent_as_every_other(both: tuple[Dataset, Dataset]) -> None:
    digits, stacked = both
    for source, made, least in ((digits.train, stacked.train, 25), (digits.validation, stacked.validation, 3)):
        of = {image.tobytes(): int(label) for image, label in zip(source.inputs, source.labels, strict=True)}
        found = np.array(
            [[of[np.ascontiguousarray(image[..., channel]).tobytes()] for channel in range(3)] for image in made.inputs]
        )
        counts = np.bincount(found @ [100, 10, 1], minlength=1000)
        assert counts.min() == least
        assert counts.max() <= least + 1
        assert np.array_equal(found[:, 0], made.labels)
        assert len({image.tobytes() for image in made.inputs}) > 0.99 * len(made)


def test_it_is_what_the_package_says(both: tuple[Dataset, Dataset]) -> None:
    _, stacked = both
    info = BUILT_IN["stacked-mnist"].info
    assert stacked.sha256 == info.sha256
    assert (len(stacked.train), len(stacked.validation)) == (info.train_count, info.validation_count)
    assert stacked.train.inputs.shape[1:] == info.image_shape
    assert stacked.train.inputs.dtype == np.uint8


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    first = load("stacked-mnist", tmp_path / "data", cache_root=tmp_path / "cache")
    (folder,) = (tmp_path / "cache").glob("stacked-mnist-*")
    (folder / "meta.json").write_text("{")
    assert load("stacked-mnist", tmp_path / "data", cache_root=tmp_path / "cache").sha256 == first.sha256
