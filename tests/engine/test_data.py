import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import DataError, ImageData, SettingError, batches, generator_for
from engine.augmentation import Changes, draw_shifts, shifted
from engine.data import batch_count

sizes = st.integers(1, 50)
seeds = st.integers(0, 2**64)


@given(n=sizes, batch_size=sizes, seed=seeds, epoch=st.integers(0, 999), shuffle=st.booleans())
def test_every_index_occurs_once_and_only_the_last_batch_can_be_short(n, batch_size, seed, epoch, shuffle) -> None:
    index_batches = list(batches(n, batch_size, seed=seed, epoch=epoch, shuffle=shuffle))
    assert sorted(np.concatenate(index_batches)) == list(range(n))
    assert all(len(part) == batch_size for part in index_batches[:-1])
    assert 0 < len(index_batches[-1]) <= batch_size
    assert len(index_batches) == batch_count(n, batch_size)
    repeated = list(batches(n, batch_size, seed=seed, epoch=epoch, shuffle=shuffle))
    assert all(np.array_equal(a, b) for a, b in zip(index_batches, repeated, strict=True))


def test_order_is_kept_without_shuffling_and_varies_by_epoch_and_seed_with_it() -> None:
    (order,) = batches(20, 20, seed=0, epoch=3, shuffle=False)
    assert order.tolist() == list(range(20))
    permutations = {tuple(next(batches(20, 20, seed=s, epoch=e, shuffle=True))) for s in (0, 1) for e in (0, 1)}
    assert len(permutations) == 4


@given(seed=seeds, epoch=st.integers(0, 9))
def test_generators_agree_if_and_only_if_their_keys_are_equal(seed: int, epoch: int) -> None:
    def draw(*key) -> int:
        return int(generator_for(*key).integers(2**62))

    assert draw(seed, "latent", epoch) == draw(seed, "latent", epoch)
    other_draws = {draw(seed, "dropout", epoch), draw(seed + 1, "latent", epoch), draw(seed, "latent", epoch + 1)}
    assert draw(seed, "latent", epoch) not in other_draws


@pytest.mark.parametrize("scale", [(0.0, 1.0), (-1.0, 1.0), (-0.42, 2.82)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bytes_are_mapped_to_the_scale_and_back(scale, dtype) -> None:
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    data = ImageData(images, None, scale)
    x = data.inputs(np.array([3, 0, 1, 2]), dtype)
    assert (x.shape, x.dtype, len(data), data.features) == ((4, 64), dtype, 4, 64)
    assert (x.min(), x.max()) == pytest.approx(scale, abs=1e-6)
    np.testing.assert_array_equal(data.to_bytes(x), images[[3, 0, 1, 2]])
    assert data.to_bytes(np.array([[-9.0] * 64, [9.0] * 64])).tolist() == [[[0] * 8] * 8, [[255] * 8] * 8]


@given(st.integers(0, 3), st.integers(1, 70), seeds)
def test_a_shifted_image_is_padded_with_zeros(max_shift: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 5, 4), np.uint8)
    shifts = draw_shifts(rng, count, max_shift)
    assert np.abs(shifts).max() <= max_shift
    expected = np.zeros_like(images)
    for image, (down, right), target in zip(images, shifts, expected, strict=True):
        for row, column in np.ndindex(5, 4):
            if 0 <= row - down < 5 and 0 <= column - right < 4:
                target[row, column] = image[row - down, column - right]
    np.testing.assert_array_equal(shifted(images, shifts), expected)
    data, indices = ImageData(images, None, (-1.0, 1.0)), rng.permutation(count)
    inputs = data.inputs(indices, np.float32, changes=Changes(shifts=shifts[indices]))
    np.testing.assert_array_equal(inputs, ImageData(expected, None, (-1.0, 1.0)).inputs(indices, np.float32))


def test_all_shifts_are_equally_likely() -> None:
    shifts = draw_shifts(generator_for(0, "augment"), 9000, 1)
    _, counts = np.unique(shifts @ [3, 1], return_counts=True)
    assert counts.shape == (9,)
    assert np.all(np.abs(counts - 1000) < 150)  # five standard deviations


def test_batches_are_not_views_of_a_memory_map(tmp_path) -> None:
    np.save(tmp_path / "images.npy", np.ones((4, 2, 2), np.uint8))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    data = ImageData(mapped, None)
    for index in (slice(0, 2), np.array([0, 1])):
        assert not np.shares_memory(data.inputs(index, np.float32), mapped)
        assert type(data.inputs(index, np.float32)) is np.ndarray
    assert np.shares_memory(data.images, mapped)


def test_invalid_data_and_settings_are_rejected() -> None:
    images = np.zeros((2, 2, 2), np.uint8)
    with pytest.raises(DataError, match="float64"):
        ImageData(images.astype(float), None)
    with pytest.raises(DataError, match="no images"):
        ImageData(images[:0], None)
    with pytest.raises(DataError, match="range from 0 to 7"):
        ImageData(images, np.array([0, 7]), classes=5)
    with pytest.raises(DataError, match="labels must be integers, not float64"):
        ImageData(images, np.array([0, np.nan]))
    with pytest.raises(DataError, match=r"not int64 \(1, 2\)"):
        ImageData([[1, 2]], None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="scale"):
        ImageData(images, None, (1.0, 0.0))
    with pytest.raises(DataError, match="can be shifted"):
        ImageData(images.reshape(2, 4), None).inputs(
            np.array([0]), np.float32, changes=Changes(shifts=np.zeros((1, 2), int))
        )
    with pytest.raises(SettingError, match="batch_size 0"):
        batch_count(5, 0)
    with pytest.raises(SettingError, match="batch_size 0"):
        next(batches(5, 0, seed=0, epoch=0, shuffle=False))
    with pytest.raises(SettingError, match="seed -1"):
        generator_for(-1, "init")
