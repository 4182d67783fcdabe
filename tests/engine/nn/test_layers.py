import re

import numpy as np
import pytest

from engine import (
    Activation,
    CheckpointError,
    Dense,
    Dropout,
    GradientTape,
    Sequential,
    SettingError,
    ShapeError,
    gradcheck,
    initializers,
    ops,
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def network(dropout: float = 0.5) -> Sequential:
    return Sequential([Dense(4, 3, "tanh", rng=rng()), Dropout(dropout), Dense(3, 2, "softmax", rng=rng())])


def test_dense_is_an_affine_map_followed_by_an_activation() -> None:
    layer = Dense(2, 3, "relu", rng=rng(), initializer=initializers.uniform(1.0))
    x = np.array([[1.0, -2.0]], np.float32)
    np.testing.assert_array_equal(layer(x), np.maximum(x @ layer.weight + layer.bias, 0))
    assert layer(x).dtype == np.float32


@pytest.mark.parametrize("activation", [None, *Activation])
def test_every_activation_has_a_correct_gradient(activation: Activation | None) -> None:
    layer = Dense(3, 4, activation, rng=rng(), dtype=np.float64, negative_slope=0.1)
    gradcheck(layer, rng().standard_normal((2, 3)))


def test_named_parameters_include_every_layer() -> None:
    parameters = network().named_parameters()
    assert {name: tensor.shape for name, tensor in parameters.items()} == {
        "layers.0.weight": (4, 3),
        "layers.0.bias": (3,),
        "layers.2.weight": (3, 2),
        "layers.2.bias": (2,),
    }


def test_logits_omit_the_last_activation() -> None:
    model = network()
    x = np.ones((5, 4), np.float32)
    np.testing.assert_array_equal(ops.softmax(model.logits(x)), model(x))


def test_dropout_drops_only_while_training() -> None:
    layer, x = Dropout(0.25), np.ones((200, 200), np.float32)
    y = layer(x, training=True, rng=rng())
    assert set(np.unique(y)) == {0, np.float32(4 / 3)}
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.01)
    np.testing.assert_array_equal(layer(x, training=True, rng=rng()), y)
    assert layer(x) is x
    assert Dropout(0)(x, training=True) is x
    with pytest.raises(SettingError, match="random generator"):
        layer(x, training=True)


def test_dropout_passes_gradients_where_it_passed_values() -> None:
    layer = Dense(3, 3, rng=rng())
    with GradientTape() as tape:
        y = Dropout(0.5)(layer(np.ones((4, 3), np.float32)), training=True, rng=rng())
    (gradient,) = tape.gradient(y, [layer.bias])
    np.testing.assert_allclose(gradient, np.sum(np.asarray(y) != 0, axis=0) * 2.0)


def test_state_round_trips_and_is_a_copy() -> None:
    model, restored = network(), network()
    for tensor in model.parameters:
        tensor += 1
    restored.load_state_dict(model.state_dict())
    for a, b in zip(model.parameters, restored.parameters, strict=True):
        np.testing.assert_array_equal(a, b)
    state = model.state_dict()
    model.parameters[0][...] = 7
    assert not np.any(state["layers.0.weight"] == 7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layers.2.bias"), r"layers\.2\.bias is missing"),
        (lambda state: state.update({"layers.4.bias": np.ones(2)}), r"layers\.4\.bias is in the checkpoint but not"),
        (lambda state: state.update({"layers.2.bias": np.ones(3, np.float32)}), r"float32 \(3,\) .* float32 \(2,\)"),
        (lambda state: state.update({"layers.2.bias": np.ones(2)}), r"float64 \(2,\) .* float32 \(2,\)"),
        (lambda state: state["layers.2.bias"].fill(np.nan), r"layers\.2\.bias has values .* not finite"),
        (lambda state: state["layers.2.bias"].fill(np.inf), r"layers\.2\.bias has values .* not finite"),
    ],
)
def test_an_invalid_state_is_rejected_and_changes_nothing(change, message: str) -> None:
    model = network()
    before, state = model.state_dict(), {name: array + 1 for name, array in model.state_dict().items()}
    change(state)
    with pytest.raises(CheckpointError, match=message):
        model.load_state_dict(state)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_invalid_settings_are_rejected() -> None:
    with pytest.raises(SettingError, match="units 0"):
        Dense(3, 0, rng=rng())
    with pytest.raises(SettingError, match="known are sigmoid, tanh"):
        Dense(3, 1, "swish", rng=rng())
    with pytest.raises(SettingError, match=r"negative_slope 1.5"):
        Dense(3, 1, rng=rng(), negative_slope=1.5)
    with pytest.raises(SettingError, match="rate 1"):
        Dropout(1.0)
    with pytest.raises(SettingError, match="last layer must be Dense"):
        Sequential([Dropout(0.5)])
    with pytest.raises(
        ShapeError, match=r"layer 1 \(Dense\) does not fit layer 0 \(Dense\): Dense takes \(4,\), not \(3,\)"
    ):
        Sequential([Dense(2, 3, rng=rng()), Dense(4, 2, rng=rng())])


@pytest.mark.parametrize("shape", [(1, 5), (2, 3, 4), (4,), ()])
def test_inputs_of_another_shape_are_rejected(shape: tuple[int, ...]) -> None:
    for call in (network(), network().logits, network().layer_outputs):
        with pytest.raises(ShapeError, match=rf"takes \(batch, 4\), not {re.escape(str(shape))}"):
            call(np.ones(shape))


def test_lists_of_numbers_are_accepted_as_inputs() -> None:
    rows = [[0.5, 1, 2, 3]]
    np.testing.assert_array_equal(network()(rows), network()(np.array(rows)))


def test_dropout_keeps_the_memory_layout() -> None:
    x = np.ones((30, 40), np.float32)
    for array in (x, np.asfortranarray(x)):
        y = Dropout(0.5)(array, training=True, rng=np.random.default_rng(0))
        assert y.strides == array.strides
        assert 0.4 < np.count_nonzero(y) / y.size < 0.6
