import numpy as np
import pytest

from engine import SGD, Adam, CheckpointError, SettingError, ShapeError, Tensor

OPTIMIZERS = [lambda: SGD(0.1), lambda: SGD(0.1, momentum=0.9), lambda: Adam(0.1), lambda: Adam(0.1, 0.5, 0.99, 1e-3)]


def parameters(dtype=np.float64, size=3):
    rng = np.random.default_rng(0)
    return [Tensor(rng.standard_normal((size, 4)).astype(dtype), watch=True), Tensor(np.ones(2, dtype), watch=True)]


def gradients(tensors, step):
    rng = np.random.default_rng(step + 1)
    return [Tensor(rng.standard_normal(tensor.shape).astype(tensor.dtype)) for tensor in tensors]


def train(optimizer, tensors, steps):
    for step in steps:
        optimizer.apply(tensors, gradients(tensors, step), 0.1)


def test_sgd_follows_its_formula() -> None:
    p, plain, heavy = np.array([1.0, 2.0]), Tensor(np.array([1.0, 2.0])), Tensor(np.array([1.0, 2.0]))
    v, momentum, sgd = np.zeros(2), SGD(0.1, momentum=0.5), SGD(0.1)
    expected = p.copy()
    for g in (np.array([1.0, -1.0]), np.array([0.5, 2.0])):
        v = 0.5 * v + g
        p, expected = p - 0.1 * v, expected - 0.1 * g
        momentum.apply([heavy], [Tensor(g.copy())], 0.1)
        sgd.apply([plain], [Tensor(g.copy())], 0.1)
    np.testing.assert_allclose(heavy, p)
    np.testing.assert_allclose(plain, expected)


def test_adam_follows_its_paper() -> None:
    p, m, v, tensor, adam = np.ones(3), 0.0, 0.0, Tensor(np.ones(3)), Adam(0.1, 0.8, 0.9, 1e-2)
    for t in range(1, 6):
        g = np.array([1.0, -0.1, 3.0]) * t
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        p = p - 0.1 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-2)
        adam.apply([tensor], [Tensor(g)], 0.1)
    np.testing.assert_allclose(tensor, p)


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_resumed_optimizer_gives_the_same_bits(make, dtype) -> None:
    whole, optimizer = parameters(dtype), make()
    train(optimizer, whole, range(6))
    parts, first, second = parameters(dtype), make(), make()
    train(first, parts, range(3))
    second.load_state_dict(first.state_dict(), parts)
    train(first, parameters(dtype), [9])  # the state is a copy
    train(second, parts, range(3, 6))
    for a, b in zip(whole, parts, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_blocks_and_memory_order_change_nothing(make) -> None:
    large = parameters(size=20_000)
    scattered = [Tensor(np.asfortranarray(tensor), watch=True) for tensor in parameters(size=20_000)]
    train(make(), large, range(3))
    train(make(), scattered, range(3))
    np.testing.assert_array_equal(large[0], scattered[0])


def test_parameters_are_changed_in_place() -> None:
    tensors = parameters()
    memory = [np.asarray(tensor) for tensor in tensors]
    train(Adam(0.1), tensors, range(1))
    for tensor, array in zip(tensors, memory, strict=True):
        np.testing.assert_array_equal(tensor, array)
        assert tensor.watched


def test_a_state_that_does_not_fit_is_refused() -> None:
    tensors = parameters()
    adam, momentum = Adam(), SGD(0.1, momentum=0.9)
    train(adam, tensors, range(1))
    train(momentum, tensors, range(1))
    with pytest.raises(CheckpointError, match="another kind of optimizer"):
        SGD(0.1).load_state_dict(adam.state_dict(), tensors)
    with pytest.raises(CheckpointError, match="another kind of optimizer"):
        Adam().load_state_dict(momentum.state_dict(), tensors)
    with pytest.raises(CheckpointError, match=r"first_sum\.0 is float64 \(3, 4\) .* float32 \(3, 4\)"):
        Adam().load_state_dict(adam.state_dict(), parameters(np.float32))
    state = adam.state_dict()
    del state["second_sum.1"]
    with pytest.raises(CheckpointError, match=r"second_sum\.1 is missing"):
        Adam().load_state_dict(state, tensors)
    state = adam.state_dict() | {"steps": np.array(0)}
    with pytest.raises(CheckpointError, match="do not belong together"):
        Adam().load_state_dict(state, tensors)


def test_misfits_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(3, 4\) and gradient \(2,\)"):
        SGD(0.1).apply(parameters(), parameters()[::-1], 0.1)
    with pytest.raises(ShapeError, match="2 parameters but 1"):
        Adam().apply(parameters(), parameters()[:1], 0.1)
    for make in (lambda: SGD(0), lambda: SGD(0.1, momentum=1), lambda: Adam(beta1=1), lambda: Adam(epsilon=0)):
        with pytest.raises(SettingError):
            make()
