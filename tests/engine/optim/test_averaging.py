import numpy as np
import pytest

from engine import BatchNorm, Dense, Sequential, SettingError, generator_for
from engine.optim.averaging import AveragedWeights


def network(seed: int = 0) -> Sequential:
    rng = generator_for(seed, "init")
    return Sequential([Dense(3, 4, rng=rng), BatchNorm(4, "tanh"), Dense(4, 2, "softmax", rng=rng)])


def arrays(model: Sequential) -> dict[str, np.ndarray]:
    """The weights and running statistics, without copying them."""
    return {name: np.asarray(array) for name, array in (model.named_parameters() | model.named_buffers()).items()}


def write_weights(model: Sequential, step: int) -> list[np.ndarray]:
    """Write new weights, as a training step would, and return copies of them."""
    rng = np.random.default_rng(step)
    for array in arrays(model).values():
        array[...] = rng.standard_normal(array.shape)
    return [np.array(array) for array in arrays(model).values()]


def weight_bytes(model: Sequential) -> bytes:
    return b"".join(array.tobytes() for array in arrays(model).values())


def test_the_average_follows_its_formula_and_does_not_affect_training() -> None:
    model = network()
    average = AveragedWeights(model, 0.5)
    expected = [np.array(array) for array in arrays(model).values()]
    for step in range(8):
        new = write_weights(model, step)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = [decay * a + (1 - decay) * w for a, w in zip(expected, new, strict=True)]
        assert weight_bytes(model) == b"".join(array.tobytes() for array in new)
    with average.in_use():
        for got, array in zip(arrays(model).values(), expected, strict=True):
            np.testing.assert_allclose(got, array, rtol=1e-5, atol=1e-6)


def test_the_training_weights_are_restored_after_an_error() -> None:
    model = network()
    average = AveragedWeights(model, 0.9)
    write_weights(model, 0)
    average.update(0)
    before = weight_bytes(model)

    def fail() -> None:
        with average.in_use():
            assert weight_bytes(model) != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert weight_bytes(model) == before


def test_a_state_has_the_averages_as_weights_and_the_training_weights_separately() -> None:
    model, loaded = network(), network(1)
    average, resumed = AveragedWeights(model, 0.9), AveragedWeights(loaded, 0.9)
    for step in range(3):
        write_weights(model, step)
        average.update(step)
    state = average.state_dict()
    assert sorted(state) == sorted([*arrays(model), *(f"training.{name}" for name in arrays(model))])
    resumed.load_state_dict({f"generator.{name}": array for name, array in state.items()}, "generator.")
    assert weight_bytes(loaded) == weight_bytes(model)
    inference_network = network(2)
    inference_network.load_state_dict(state)
    with average.in_use(), resumed.in_use():
        assert weight_bytes(inference_network) == weight_bytes(model) == weight_bytes(loaded)


def test_without_a_decay_the_state_has_only_the_network() -> None:
    model = network()
    disabled, average = AveragedWeights(model, None), AveragedWeights(network(1), 0.9)
    write_weights(model, 0)
    disabled.update(0)
    before = weight_bytes(model)
    with disabled.in_use():
        assert weight_bytes(model) == before
    state = disabled.state_dict()
    assert list(state) == list(arrays(model))
    average.load_state_dict(state)  # the average starts with the loaded weights
    with average.in_use():
        assert weight_bytes(average.network) == before
    assert weight_bytes(average.network) == before


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range_is_rejected(decay: float) -> None:
    with pytest.raises(SettingError, match="average_decay"):
        AveragedWeights(network(), decay)
