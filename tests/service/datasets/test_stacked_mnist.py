"""Stacked MNIST: all modes are equally frequent, and each channel is an original digit of the same part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from service.datasets.builtins import BUILT_IN
from service.datasets.cache import Dataset, load
from service.datasets.formats.array_folders import ArrayCache


@pytest.fixture(scope="module")
def digits_and_stacked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    """The digits, and the dataset derived from them."""
    root = tmp_path_factory.mktemp("stacked")
    digits, stacked = (
        load(name, root / "data", cache=ArrayCache(root / "cache")) for name in ("mnist-10k", "stacked-mnist")
    )
    return digits, stacked


def test_mode_frequencies_differ_by_at_most_one(digits_and_stacked: tuple[Dataset, Dataset]) -> None:
    digits, stacked = digits_and_stacked
    for source, derived, minimum in ((digits.train, stacked.train, 25), (digits.validation, stacked.validation, 3)):
        label_of = {image.tobytes(): int(label) for image, label in zip(source.inputs, source.labels, strict=True)}
        channel_labels = np.array(
            [
                [label_of[np.ascontiguousarray(image[..., channel]).tobytes()] for channel in range(3)]
                for image in derived.inputs
            ]
        )
        counts = np.bincount(channel_labels @ [100, 10, 1], minlength=1000)
        assert counts.min() == minimum
        assert counts.max() <= minimum + 1
        assert np.array_equal(channel_labels[:, 0], derived.labels)
        assert len({image.tobytes() for image in derived.inputs}) > 0.99 * len(derived)


def test_stacked_mnist_matches_its_built_in_info(digits_and_stacked: tuple[Dataset, Dataset]) -> None:
    _, stacked = digits_and_stacked
    info = BUILT_IN["stacked-mnist"].info
    assert stacked.sha256 == info.sha256
    assert (len(stacked.train), len(stacked.validation)) == (info.train_count, info.validation_count)
    assert stacked.train.inputs.shape[1:] == info.image_shape
    assert stacked.train.inputs.dtype == np.uint8


def test_a_damaged_cache_is_rebuilt(tmp_path: Path) -> None:
    first = load("stacked-mnist", tmp_path / "data", cache=ArrayCache(tmp_path / "cache"))
    (folder,) = (tmp_path / "cache").glob("stacked-mnist-*")
    (folder / "meta.json").write_text("{")
    assert load("stacked-mnist", tmp_path / "data", cache=ArrayCache(tmp_path / "cache")).sha256 == first.sha256
