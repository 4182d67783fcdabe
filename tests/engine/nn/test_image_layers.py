"""Layers for images, and batch normalization."""

from typing import Any

import numpy as np
import pytest

from engine import (
    Activation,
    BatchNorm,
    CheckpointError,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GradientTape,
    MaxPool2D,
    Reshape,
    Sequential,
    SettingError,
    ShapeError,
    Tensor,
    Upsample2D,
    generator_for,
    gradcheck,
    initializers,
    ops,
)

input_rng = np.random.default_rng(0)


def rng() -> np.random.Generator:
    return generator_for(0, "init")


def classifier(**options: Any) -> Sequential:
    layers = [
        Conv2D(1, 3, rng=rng(), **options),
        BatchNorm(3, "relu", **options),
        MaxPool2D(),
        Conv2D(3, 4, 3, 2, "valid", "tanh", rng=rng(), **options),
        Dropout(0.1),
        Flatten(),
        Dense(16, 5, "softmax", rng=rng(), **options),
    ]
    return Sequential(layers, (10, 12, 1))


def test_shapes_propagate_through_all_layers() -> None:
    model = Sequential(
        [Reshape((3, 4, 2)), Upsample2D(2), Conv2D(2, 6, 5, rng=rng()), MaxPool2D(2), Conv2D(6, 1, 2, 2, rng=rng())]
    )
    assert (model.inputs, model.output_shape, model.units) == (24, (2, 2, 1), 4)
    assert model(np.ones((7, 24), np.float32)).shape == (7, 4)
    assert model.logits(np.ones((7, 4, 3, 2), np.float32).reshape(7, 24)).shape == (7, 4)


def test_rows_and_images_are_equivalent_inputs() -> None:
    model, x = classifier(), input_rng.random((3, 120), np.float32)
    np.testing.assert_array_equal(model(x), model(x.reshape(3, 10, 12, 1)))


@pytest.mark.parametrize("activation", [None, *Activation])
def test_convolutions_and_batch_norms_have_gradients_with_every_activation(activation: Activation | None) -> None:
    layer = Conv2D(2, 3, 2, 1, "valid", activation, rng=rng(), dtype=np.float64, negative_slope=0.1)
    gradcheck(layer, input_rng.standard_normal((2, 3, 3, 2)))
    x = input_rng.standard_normal((2, 3, 3, 2))
    norm = BatchNorm(2, activation, dtype=np.float64, negative_slope=0.1)
    gradcheck(lambda x: norm(x, training=True), x)
    gradcheck(norm, x)


def test_the_fans_of_a_convolution_include_the_kernel_area() -> None:
    draw = generator_for(0, "init")
    he = initializers.he_normal((5, 5, 16, 400), draw, np.float64)
    assert he.std() == pytest.approx((2 / (25 * 16)) ** 0.5, rel=0.01)
    glorot = initializers.glorot_uniform((3, 3, 10, 30), draw, np.float64)
    assert np.abs(glorot).max() == pytest.approx((6 / (9 * 10 + 9 * 30)) ** 0.5, rel=0.01)


def test_dropout_keeps_the_memory_layout_of_images() -> None:
    x = ops.conv2d(np.ones((5, 30, 30, 1), np.float32), np.ones((1, 1, 1, 8), np.float32), np.zeros(8, np.float32))
    y = np.asarray(Dropout(0.25)(x, training=True, rng=rng()))
    assert y.strides == x.strides
    assert np.mean(y == 0, axis=(0, 1, 2)) == pytest.approx(np.full(8, 0.25), abs=0.03)


def test_batch_norm_normalizes_a_batch_and_updates_running_statistics() -> None:
    x = input_rng.normal(3, 2, (64, 5, 5, 4)).astype(np.float32)
    layer = BatchNorm(4, momentum=0.75)
    y = np.asarray(layer(x, training=True))
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=(0, 1, 2)), 1, atol=1e-4)
    np.testing.assert_allclose(layer.running_mean, 0.25 * x.mean(axis=(0, 1, 2)), rtol=1e-5)
    unbiased = x.reshape(-1, 4).var(axis=0, ddof=1)
    np.testing.assert_allclose(layer.running_variance, 0.75 + 0.25 * unbiased, rtol=1e-5)


def test_inference_results_do_not_depend_on_the_batch() -> None:
    model = classifier()
    for _ in range(20):
        model(input_rng.random((16, 120), np.float32), training=True, rng=rng())
    state, x = model.state_dict(), input_rng.random((8, 120), np.float32)
    batch_outputs = np.asarray(model(x))
    for image, expected in zip(x, batch_outputs, strict=True):
        np.testing.assert_allclose(np.asarray(model(image[None]))[0], expected, rtol=1e-5)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, state[name])
    assert not np.allclose(model(x, training=True, rng=rng()), batch_outputs, rtol=1e-3)


def test_batch_norm_accepts_a_batch_of_one() -> None:
    layer = BatchNorm(3)
    assert np.asarray(layer(np.ones((1, 3), np.float32), training=True)).tolist() == [[0, 0, 0]]
    assert np.isfinite(layer.running_variance).all()


def test_running_statistics_are_state_but_not_parameters() -> None:
    model, restored = classifier(), classifier()
    model(input_rng.random((16, 120), np.float32), training=True, rng=rng())
    assert [name for name in model.state_dict() if name.startswith("layers.1.")] == [
        "layers.1.scale",
        "layers.1.shift",
        "layers.1.running_mean",
        "layers.1.running_variance",
    ]
    assert list(model.named_parameters())[2:4] == ["layers.1.scale", "layers.1.shift"]
    assert list(model.named_buffers()) == ["layers.1.running_mean", "layers.1.running_variance"]
    restored.load_state_dict(model.state_dict())
    x = input_rng.random((4, 120), np.float32)
    np.testing.assert_array_equal(restored(x), model(x))
    state = model.state_dict()
    del state["layers.1.running_mean"]
    with pytest.raises(CheckpointError, match=r"layers\.1\.running_mean is missing"):
        restored.load_state_dict(state)


def test_the_gradients_of_a_whole_network_agree_with_central_differences() -> None:
    model = classifier(dtype=np.float64)
    x, labels = input_rng.random((3, 120)), np.array([0, 3, 4])

    def loss(*values: Any) -> Any:
        for array, value in zip(model.parameters, values, strict=True):
            np.copyto(np.asarray(array), np.asarray(value))
        return ops.softmax_cross_entropy(model.logits(x, training=True, rng=rng()), labels)

    values = [np.array(parameter) for parameter in model.parameters]
    with GradientTape() as tape:
        y = loss(*values)
    gradients = tape.gradient(y, model.parameters)
    for number, value in enumerate(values):
        index = np.unravel_index(input_rng.integers(value.size), value.shape)
        losses = []
        for h in (1e-6, -1e-6):
            shifted = [array.copy() for array in values]
            shifted[number][index] += h
            losses.append(float(loss(*shifted)))
        assert gradients[number][index] == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-4, abs=1e-8)


def test_layers_that_do_not_fit_are_named_in_the_error() -> None:
    conv = Conv2D(1, 4, rng=rng())
    with pytest.raises(ShapeError, match=r"layer 1 \(Dense\) does not fit layer 0 \(Conv2D\): .*put Flatten before it"):
        Sequential([conv, Dense(4, 2, rng=rng())], (8, 8, 1))
    with pytest.raises(ShapeError, match=r"layer 0 \(Conv2D\) does not fit the input: .* 1 channels, not \(8, 8, 3\)"):
        Sequential([conv], (8, 8, 3))
    with pytest.raises(ShapeError, match=r"layer 1 \(MaxPool2D\) .*multiples of 3, not \(8, 8, 4\)"):
        Sequential([conv, MaxPool2D(3), conv], (8, 8, 1))
    with pytest.raises(ShapeError, match="kernel of 9 does not fit into 8 pixels"):
        Sequential([Conv2D(1, 4, 9, rng=rng())], (8, 8, 1))
    with pytest.raises(ShapeError, match=r"takes images .*put Reshape before it"):
        Sequential([Dense(3, 4, rng=rng()), conv])
    with pytest.raises(ShapeError, match=r"Reshape takes 12 numbers for the shape \(2, 6\), not \(3, 3\)"):
        Sequential([Reshape((2, 6)), conv], (3, 3))
    with pytest.raises(ShapeError, match=r"BatchNorm takes 5 features in the last axis, not \(8, 8, 1\)"):
        Sequential([BatchNorm(5), conv], (8, 8, 1))


def test_invalid_settings_are_rejected() -> None:
    for make, message in (
        (lambda: Conv2D(1, 0, rng=rng()), "filters 0"),
        (lambda: Conv2D(1, 1, 0, rng=rng()), "kernel 0"),
        (lambda: Conv2D(1, 1, padding="full", rng=rng()), "neither same nor valid"),
        (lambda: Conv2D(1, 1, activation="swish", rng=rng()), "known are"),
        (lambda: MaxPool2D(0), "size 0"),
        (lambda: Upsample2D(0), "size 0"),
        (lambda: Reshape(()), "must be positive"),
        (lambda: BatchNorm(0), "features 0"),
        (lambda: BatchNorm(1, momentum=1.0), r"momentum 1\.0"),
        (lambda: BatchNorm(1, epsilon=0), "epsilon 0"),
        (lambda: Sequential([Conv2D(1, 1, rng=rng())]), r"input_shape=\(height, width, channels\)"),
        (lambda: Sequential([Conv2D(1, 1, rng=rng())], (0, 3, 1)), "input_shape"),
        (lambda: Sequential([Conv2D(1, 1, rng=rng()), Flatten()], (3, 3, 1)), "last layer must be Dense, Conv2D or"),
    ):
        with pytest.raises(SettingError, match=message):
            make()


@pytest.mark.parametrize("shape", [(100_000, 3), (1_000, 10, 10, 3)])
def test_batch_norm_is_accurate_far_from_zero(shape: tuple[int, ...]) -> None:
    input_rng = np.random.default_rng(0)
    x = (1e4 + input_rng.standard_normal(shape)).astype(np.float32)
    exact = x.astype(np.float64)
    axes = tuple(range(x.ndim - 1))
    expected = (exact - exact.mean(axes)) / np.sqrt(exact.var(axes) + 1e-5)
    layer = BatchNorm(3)
    np.testing.assert_allclose(layer(x, training=True), expected, atol=0.01)  # PyTorch: 0.04
    np.testing.assert_allclose(layer.running_mean, 0.1 * exact.mean(axes), rtol=1e-6)


def test_bias_and_shift_gradients_sum_many_rows_accurately() -> None:
    input_rng = np.random.default_rng(0)
    g = (1e3 + input_rng.standard_normal((100_001, 3))).astype(np.float32)
    b = Tensor(np.ones(3, np.float32), watch=True)
    for layer in (lambda: ops.affine(g[:, :1], g[:1], b), lambda: ops.batch_norm(g, np.ones(3, np.float32), b)[0]):
        with GradientTape() as tape:
            y = layer()
        (gradient,) = tape.gradient(y, [b], output_gradients=g)
        np.testing.assert_allclose(gradient, g.astype(np.float64).sum(axis=0), rtol=1e-6)
