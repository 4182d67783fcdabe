"""Random augmentation of greyscale and colour images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.augmentation import Augmentation, Changes, shifted
from engine.data import ImageData, generator_for
from engine.errors import SettingError

SHAPES = [(7, 5), (7, 5, 3), (6, 6)]


def random_images(shape: tuple[int, ...], count: int = 12) -> np.ndarray:
    return np.random.default_rng(3).integers(1, 256, (count, *shape)).astype(np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shift_moves_all_channels_together(shape: tuple[int, ...]) -> None:
    images, shifts = random_images(shape), np.random.default_rng(0).integers(-2, 3, (12, 2))
    expected = np.zeros_like(images)
    for image, target, (down, right) in zip(images, expected, shifts, strict=True):
        height, width = shape[:2]
        target[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = image[
            max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
        ]
    np.testing.assert_array_equal(shifted(images, shifts), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_flipping_reverses_columns_and_flipping_twice_restores_the_images(shape: tuple[int, ...]) -> None:
    images, flips = random_images(shape), np.arange(12) % 3 == 0
    changes = Changes(flips=flips)
    flipped = changes.apply(images.copy(), slice(0, 12))
    np.testing.assert_array_equal(flipped[flips], images[flips][:, :, ::-1])
    np.testing.assert_array_equal(flipped[~flips], images[~flips])
    np.testing.assert_array_equal(changes.apply(flipped, slice(0, 12)), images)


@given(st.sampled_from(SHAPES), st.integers(1, 4), st.integers(0, 2**32))
def test_a_cutout_is_one_square_around_its_centre(shape: tuple[int, ...], side: int, seed: int) -> None:
    images = random_images(shape)
    changes = Augmentation(cutout=side).draw(np.random.default_rng(seed), 12, shape)
    assert changes is not None
    assert changes.centres is not None
    cut = changes.apply(images.copy(), slice(0, 12))
    for before, after, (row, column) in zip(images, cut, changes.centres, strict=True):
        top, left = row - side // 2, column - side // 2
        expected = before.copy()
        expected[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
        np.testing.assert_array_equal(after, expected)
        assert not after[row, column].any()
    again = changes.apply(cut.copy(), slice(0, 12))
    np.testing.assert_array_equal(again, cut)


def test_interior_pixels_are_cut_out_equally_often() -> None:
    shape, side, count = (16, 16), 4, 20_000
    changes = Augmentation(cutout=side).draw(generator_for(0, "augment"), count, shape)
    assert changes is not None
    erased = (changes.apply(np.ones((count, *shape), np.uint8), slice(0, count)) == 0).mean(axis=0)
    inner = erased[4:-4, 4:-4]
    expected = (side / 16) ** 2
    np.testing.assert_allclose(inner, expected, atol=5 * (expected / count) ** 0.5)
    assert erased[0, 0] < expected


def test_half_of_the_images_are_mirrored() -> None:
    changes = Augmentation(flip=True).draw(generator_for(0, "augment"), 10_000, (4, 4))
    assert changes is not None
    assert changes.flips is not None
    assert abs(changes.flips.mean() - 0.5) < 0.02


def test_enabling_other_augmentations_does_not_change_the_shifts() -> None:
    alone = Augmentation(max_shift=2).draw(generator_for(0, "augment"), 50, (9, 9))
    both = Augmentation(2, flip=True, cutout=3).draw(generator_for(0, "augment"), 50, (9, 9))
    assert alone is not None
    assert both is not None
    np.testing.assert_array_equal(alone.shifts, both.shifts)
    assert Augmentation().draw(generator_for(0, "augment"), 50, (9, 9)) is None


@pytest.mark.parametrize("shape", SHAPES)
def test_batches_are_augmented_block_by_block_and_the_dataset_is_unchanged(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = random_images(shape, 200)
    data, original = ImageData(images, None), images.copy()
    indices = np.random.default_rng(1).permutation(200)[:150]
    changes = Augmentation(1, flip=True, cutout=2).draw(generator_for(0, "augment"), 150, shape)
    assert changes is not None
    block_sizes: list[int] = []
    apply = Changes.apply

    def spy(self: Changes, block: np.ndarray, part: slice) -> np.ndarray:
        block_sizes.append(len(block))
        return apply(self, block, part)

    monkeypatch.setattr(Changes, "apply", spy)
    inputs = data.inputs(indices, np.float64, changes=changes)
    assert len(block_sizes) > 2
    assert sum(block_sizes) == 150
    expected = apply(changes, images[indices], slice(0, 150)).reshape(150, -1) / 255
    np.testing.assert_allclose(inputs, expected, rtol=1e-12)
    np.testing.assert_array_equal(images, original)


@pytest.mark.parametrize("settings", [{"cutout": -1}, {"cutout": 5}, {"max_shift": 5}, {"max_shift": -1}])
@pytest.mark.parametrize("shape", [(7, 5), (5, 7, 3)])
def test_settings_that_are_negative_or_span_the_image_are_rejected(
    settings: dict[str, int], shape: tuple[int, ...]
) -> None:
    with pytest.raises(SettingError) as error:
        Augmentation(**settings).check(shape)  # type: ignore[arg-type]
    assert error.value.setting == next(iter(settings))


def test_rows_of_numbers_cannot_be_flipped() -> None:
    with pytest.raises(SettingError, match="rows and columns"):
        Augmentation(flip=True).check((5,))
