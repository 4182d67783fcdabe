import numpy as np
import pytest

from engine import BatchNorm, Dense, Sequential, SettingError, generator_for
from engine.optim.averaging import AveragedWeights


def network(seed: int = 0) -> Sequential:
    rng = generator_for(seed, "init")
    return Sequential([Dense(3, 4, rng=rng), BatchNorm(4, "tanh"), Dense(4, 2, "softmax", rng=rng)])


def arrays(model: Sequential) -> dict[str, np.ndarray]:
    """Weights and running statistics where they lie."""
    return {name: np.asarray(array) for name, array in (model.named_parameters() | model.named_buffers()).items()}


def changed(model: Sequential, step: int) -> list[np.ndarray]:
    """New weights, as a step of training would write them; copies of them."""
    rng = np.random.default_rng(step)
    for array in arrays(model).values():
        array[...] = rng.standard_normal(array.shape)
    return [np.array(array) for array in arrays(model).values()]


def weights(model: Sequential) -> bytes:
    return b"".join(array.tobytes() for array in arrays(model).values())


def test_the_average_follows_its_formula_and_the_training_does_not_feel_it() -> None:
    model = network()
    average = AveragedWeights(model, 0.5)
    expected = [np.array(array) for array in arrays(model).values()]
    for step in range(8):
        new = changed(model, step)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = [decay * a + (1 - decay) * w for a, w in zip(expected, new, strict=True)]
        assert weights(model) == b"".join(array.tobytes() for array in new)
    with average.in_use():
        for got, array in zip(arrays(model).values(), expected, strict=True):
            np.testing.assert_allclose(got, array, rtol=1e-5, atol=1e-6)


def test_the_weights_come_back_whatever_happens() -> None:
    model = network()
    average = AveragedWeights(model, 0.9)
    changed(model, 0)
    average.update(0)
    before = weights(model)

    def fail() -> None:
        with average.in_use():
            assert weights(model) != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert weights(model) == before


def test_a_state_holds_the_average_as_the_network_and_the_weights_beside_it() -> None:
    model, other = network(), network(1)
    average, resumed = AveragedWeights(model, 0.9), AveragedWeights(other, 0.9)
    for step in range(3):
        changed(model, step)
        average.update(step)
    state = average.state_dict()
    assert sorted(state) == sorted([*arrays(model), *(f"training.{name}" for name in arrays(model))])
    resumed.load_state_dict({f"generator.{name}": array for name, array in state.items()}, "generator.")
    assert weights(other) == weights(model)
    user = network(2)
    user.load_state_dict(state)
    with average.in_use(), resumed.in_use():
        assert weights(user) == weights(model) == weights(other)


def test_without_a_decay_there_is_nothing_but_the_network() -> None:
    model = network()
    none, average = AveragedWeights(model, None), AveragedWeights(network(1), 0.9)
    changed(model, 0)
    none.update(0)
    before = weights(model)
    with none.in_use():
        assert weights(model) == before
    state = none.state_dict()
    assert list(state) == list(arrays(model))
    average.load_state_dict(state)  # begins where the network stands
    with average.in_use():
        assert weights(average.network) == before
    assert weights(average.network) == before


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(SettingError, match="average_decay"):
        AveragedWeights(network(), decay)
