"""Convolution, pooling and upsampling: results compared with plain loops, memory, and errors."""

import itertools
from typing import Any

import numpy as np
import pytest

from engine import GradientTape, SettingError, ShapeError, Tensor, ops
from engine.ops.images import geometry
from engine.replay import Replay

rng = np.random.default_rng(0)


def convolved(x: np.ndarray, w: np.ndarray, b: np.ndarray, stride: int, padding: str) -> np.ndarray:
    """The definition of a convolution, one output at a time."""
    kernel, size = w.shape[0], x.shape[1]
    if padding == "same":
        zeros = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        x = np.pad(x, ((0, 0), *((zeros // 2, zeros - zeros // 2),) * 2, (0, 0)))
    count = (x.shape[1] - kernel) // stride + 1
    y = np.empty((len(x), count, count, w.shape[3]))
    for n, i, j, f in np.ndindex(y.shape):
        patch = x[n, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
        y[n, i, j, f] = np.sum(patch * w[..., f]) + b[f]
    return y


@pytest.mark.parametrize("filters", [1, 4])  # by patches of the output (1), and of the input (4)
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_a_convolution_matches_its_definition(kernel: int, stride: int, padding: Any, filters: int) -> None:
    x, b = rng.standard_normal((2, 7, 7, 3)), rng.standard_normal(filters)
    w = rng.standard_normal((kernel, kernel, 3, filters))
    y = ops.conv2d(x, w, b, stride=stride, padding=padding)
    np.testing.assert_allclose(y, convolved(x, w, b, stride, padding), rtol=1e-12, atol=1e-12)


def test_same_padding_keeps_the_size_and_valid_padding_does_not() -> None:
    assert geometry.window(28, 3, 1, "same").count == 28
    assert geometry.window(28, 3, 2, "same").count == 14
    assert geometry.window(28, 5, 1, "valid").count == 24
    odd = geometry.window(28, 3, 2, "same")
    assert (odd.before, odd.after) == (0, 1)


def loss_and_gradients(x: np.ndarray, w: np.ndarray, b: np.ndarray, *, rng: Any = None) -> list[np.ndarray]:
    tensors = [Tensor(array, watch=True) for array in (x, w, b)]
    with GradientTape() as tape:
        y = ops.squared_error(ops.conv2d(*tensors, stride=1), 0.5)
    return [np.asarray(array) for array in (y, *tape.gradient(y, tensors))]


@pytest.mark.parametrize(("channels", "filters"), [(2, 4), (4, 2)])
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_building_patches_in_pieces_does_not_change_the_results(
    monkeypatch: pytest.MonkeyPatch, rows: int, channels: int, filters: int
) -> None:
    shapes = (3, 7, 5, channels), (3, 3, channels, filters), (filters,)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    whole = loss_and_gradients(*arrays)
    monkeypatch.setattr(geometry, "CACHE_BLOCK_BYTES", rows * 8 * 3 * 3 * 2 * 5 * 3)  # the last one is short
    for ours, expected in zip(loss_and_gradients(*arrays), whole, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)
    replay = Replay([])
    for factor in (1, 2, -1):
        changed = [factor * array for array in arrays]
        for ours, expected in zip(replay(loss_and_gradients, *changed), loss_and_gradients(*changed), strict=True):
            assert ours.tobytes() == expected.tobytes()
    assert len(replay.plans) == 1


def test_patches_are_not_stored() -> None:
    """A replayed convolution stores inputs, outputs and gradients, not patches (nine times the input)."""
    x, w, b = (np.ones(shape, np.float32) for shape in ((50, 28, 28, 8), (3, 3, 8, 8), (8,)))
    replay = Replay([x, w, b])
    replay(loss_and_gradients, x, w, b)
    assert replay.size_bytes < 4.5 * x.nbytes + 2 * geometry.CACHE_BLOCK_BYTES


def test_max_pooling_passes_its_gradient_to_the_first_maximum() -> None:
    window = [[1.0, 5.0], [5.0, 2.0]]
    x = Tensor(np.array(window)[None, :, :, None], watch=True)
    with GradientTape() as tape:
        y = ops.max_pool2d(x) * 3.0
    assert np.asarray(y).tolist() == [[[[15.0]]]]
    assert tape.gradient(y, [x])[0][0, :, :, 0].tolist() == [[0, 3], [0, 0]]


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_pooling_some_channels_at_a_time_does_not_change_the_gradients(
    monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    x = Tensor(rng.integers(0, 3, (2, 6, 9, 5)).astype(float), watch=True)  # many ties
    gradients = []
    for block_bytes in (geometry.CACHE_BLOCK_BYTES, channels * 8 * 2 * 6 * 9):
        monkeypatch.setattr(geometry, "CACHE_BLOCK_BYTES", block_bytes)
        with GradientTape() as tape:
            y = ops.sum(ops.max_pool2d(x, size=3) * np.arange(5.0))
        gradients += tape.gradient(y, [x])
    np.testing.assert_array_equal(*gradients)
    assert np.count_nonzero(gradients[0], axis=(0, 1, 2)).tolist() == [0, 12, 12, 12, 12]


def test_upsampling_repeats_pixels() -> None:
    x = rng.standard_normal((2, 3, 4, 5))
    np.testing.assert_array_equal(ops.upsample2d(x, size=3), x.repeat(3, axis=1).repeat(3, axis=2))


def test_flattening_is_in_the_order_height_width_channels() -> None:
    x = rng.standard_normal((2, 3, 4, 5))
    planes = np.ascontiguousarray(x.transpose(1, 3, 2, 0)).transpose(3, 0, 2, 1)
    for images in (x, planes):
        np.testing.assert_array_equal(ops.flatten(images), x.reshape(2, 60))


def test_results_do_not_depend_on_the_memory_layout() -> None:
    x, w, b = rng.standard_normal((2, 4, 4, 3)), rng.standard_normal((3, 3, 3, 2)), rng.standard_normal(2)
    for order in itertools.permutations(range(4)):
        view = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
        np.testing.assert_array_equal(ops.conv2d(view, w, b), ops.conv2d(x, w, b))
        np.testing.assert_array_equal(ops.max_pool2d(view), ops.max_pool2d(x))
        np.testing.assert_array_equal(ops.upsample2d(view), ops.upsample2d(x))


def test_errors_name_wrong_shapes_and_settings() -> None:
    x, b = np.ones((2, 5, 6, 3)), np.ones(4)
    with pytest.raises(ShapeError, match=r"\(2, 5, 6, 3\) and weight \(3, 3, 2, 4\): they must be \(batch, height"):
        ops.conv2d(x, np.ones((3, 3, 2, 4)), b)
    with pytest.raises(ShapeError, match="kernel of 6 does not fit into 5 pixels"):
        ops.conv2d(x, np.ones((6, 6, 3, 4)), b, padding="valid")
    with pytest.raises(SettingError, match="stride 0"):
        ops.conv2d(x, np.ones((3, 3, 3, 4)), b, stride=0)
    with pytest.raises(SettingError, match="neither same nor valid"):
        ops.conv2d(x, np.ones((3, 3, 3, 4)), b, padding="full")
    with pytest.raises(ShapeError, match=r"windows of 2 x 2 do not divide images \(2, 5, 6, 3\)"):
        ops.max_pool2d(x)
    with pytest.raises(ShapeError, match=r"upsample2d: \(2, 5\) is not"):
        ops.upsample2d(np.ones((2, 5)))
    with pytest.raises(ShapeError, match=r"batch_norm: \(2, 5, 6, 3\) with scale \(4,\) and shift \(4,\)"):
        ops.batch_norm(x, b, b)
