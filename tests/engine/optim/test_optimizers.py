import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_arrays

from engine import SGD, Adam, AdamW, CheckpointError, SettingError, ShapeError, Tensor
from engine.optim import optimizer as optimizer_module
from engine.optim.optimizer import Optimizer, clip_by_global_norm, global_norm

OPTIMIZERS = [
    lambda: SGD(0.1),
    lambda: SGD(0.1, momentum=0.9),
    lambda: SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1, clip_norm=1.0),
    lambda: SGD(0.1, weight_decay=0.1, decay_biases=False),
    lambda: Adam(0.1),
    lambda: Adam(0.1, 0.5, 0.99, 1e-3, clip_norm=1.0),
    lambda: AdamW(0.1, weight_decay=0.1, decay_biases=False),
]


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


def test_nesterov_follows_its_paper() -> None:
    """The form in the papers takes the gradient at theta + momentum * v; the engine stores that point."""
    curvature, theta, v = np.array([1.0, 10.0]), np.array([1.0, -2.0]), np.zeros(2)
    tensor, nesterov = Tensor(theta.copy()), SGD(0.05, momentum=0.9, nesterov=True)
    for _ in range(20):
        v = 0.9 * v - 0.05 * curvature * (theta + 0.9 * v)
        theta = theta + v
        nesterov.apply([tensor], [Tensor(curvature * np.asarray(tensor))], 0.05)
        np.testing.assert_allclose(tensor, theta + 0.9 * v, rtol=1e-12)


@given(st.floats(0, 5), st.sampled_from([0.0, 0.9]), st.booleans())
def test_weight_decay_of_sgd_is_the_gradient_of_a_penalty(decay: float, momentum: float, nesterov: bool) -> None:
    def make(weight_decay: float) -> SGD:
        return SGD(0.1, momentum, nesterov=nesterov and momentum > 0, weight_decay=weight_decay)

    decayed, penalised, optimizers = parameters(), parameters(), (make(decay), make(0))
    for step in range(3):
        optimizers[0].apply(decayed, gradients(decayed, step), 0.1)
        with_penalty = [
            Tensor(np.asarray(g) + decay * np.asarray(p))
            for g, p in zip(gradients(penalised, step), penalised, strict=True)
        ]
        optimizers[1].apply(penalised, with_penalty, 0.1)
    for a, b in zip(decayed, penalised, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_weight_decay_of_adamw_does_not_enter_the_moments() -> None:
    decayed, plain = parameters(), parameters()
    decaying, adam = AdamW(0.1, weight_decay=0.2), Adam(0.1)
    start = [np.array(tensor) for tensor in plain]
    train(decaying, decayed, range(1))
    train(adam, plain, range(1))
    for before, with_decay, without in zip(start, decayed, plain, strict=True):
        np.testing.assert_allclose(with_decay, np.asarray(without) - 0.1 * 0.2 * before)
    moments = adam.state_dict()
    for name, array in decaying.state_dict().items():
        np.testing.assert_array_equal(array, moments[name])


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_weight_decay_can_exclude_biases(kind) -> None:
    def decay_only(decay_biases: bool) -> list[Tensor]:
        tensors = parameters()
        zero_gradients = [np.zeros(tensor.shape) for tensor in tensors]
        kind(0.1, weight_decay=0.5, decay_biases=decay_biases).apply(tensors, zero_gradients, 0.1)
        return tensors

    weight, bias = (np.asarray(tensor) for tensor in parameters())
    for decay_biases, expected in ((True, 0.95 * bias), (False, bias)):
        tensors = decay_only(decay_biases)
        np.testing.assert_allclose(tensors[0], 0.95 * weight)
        np.testing.assert_allclose(tensors[1], expected)


REALS = st_arrays.arrays(np.float64, st.integers(1, 6), elements=st.floats(-1e3, 1e3))


@given(st.lists(REALS, min_size=1, max_size=4), st.floats(1e-3, 1e3))
def test_clipping_keeps_the_direction_and_bounds_the_norm(arrays: list[np.ndarray], bound: float) -> None:
    whole = np.concatenate(arrays)
    norm = clip_by_global_norm(arrays, bound)
    clipped = np.concatenate(arrays)
    assert math.isclose(norm, float(np.linalg.norm(whole)), rel_tol=1e-12, abs_tol=1e-300)
    assert global_norm(arrays) <= bound * (1 + 1e-12)
    if norm <= bound - 1e-6:
        assert clipped.tobytes() == whole.tobytes()
    else:
        np.testing.assert_allclose(clipped, whole * (bound / (norm + 1e-6)), rtol=1e-12)


def test_the_norm_of_large_float32_gradients_is_finite() -> None:
    gradient = np.full(4, 1e30, np.float32)
    assert clip_by_global_norm([gradient], 1.0) == pytest.approx(2e30)
    np.testing.assert_allclose(gradient, 0.5, rtol=1e-6)
    assert global_norm([np.array([[1.0, np.nan]], np.float32)]) != global_norm([])


@pytest.mark.parametrize("make", [lambda c: SGD(0.1, 0.9, clip_norm=c), lambda c: Adam(0.1, clip_norm=c)])
def test_an_optimizer_clips_before_its_step(make) -> None:
    clipped, by_hand, optimizers = parameters(), parameters(), (make(0.5), make(None))
    for step in range(3):
        optimizers[0].apply(clipped, gradients(clipped, step), 0.1)
        given_gradients = gradients(by_hand, step)
        assert clip_by_global_norm(given_gradients, 0.5) > 0.5
        optimizers[1].apply(by_hand, given_gradients, 0.1)
    for a, b in zip(clipped, by_hand, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_resumed_optimizer_produces_the_same_bits(make, dtype) -> None:
    whole, optimizer = parameters(dtype), make()
    train(optimizer, whole, range(40))
    parts, first, second = parameters(dtype), make(), make()
    train(first, parts, range(3))
    second.load_state_dict(first.state_dict(), parts)
    train(first, parameters(dtype), [9])  # the state is a copy
    train(second, parts, range(3, 40))
    for a, b in zip([*whole, *optimizer.state_dict().values()], [*parts, *second.state_dict().values()], strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("make", [lambda: SGD(0.1, momentum=0.9, nesterov=True), Adam])
def test_a_decayed_momentum_sum_is_set_to_zero_before_it_is_denormal(make, monkeypatch) -> None:
    """This does not affect the parameters."""

    def decay() -> tuple[Tensor, Optimizer]:
        tensor, optimizer = Tensor(np.ones(2, np.float32), watch=True), make()
        for step in range(900):  # 0.9**900 is 6e-42
            optimizer.apply([tensor], [np.array([0.5, step == 0], np.float32)], 0.1)
        return tensor, optimizer

    tensor, optimizer = decay()
    (active, decayed), *_ = [array for name, array in optimizer.state_dict().items() if array.shape]
    assert active > 0.5
    assert decayed == 0
    monkeypatch.setattr(optimizer_module, "UNDERFLOW", 0)
    unflushed, optimizer = decay()
    (_, decayed), *_ = [array for name, array in optimizer.state_dict().items() if array.shape]
    assert 0 < decayed < 1e-38
    assert tensor.tobytes() == unflushed.tobytes()


def test_a_momentum_state_without_a_step_count_is_loaded() -> None:
    tensors, first, second = parameters(), SGD(0.1, momentum=0.9), SGD(0.1, momentum=0.9)
    train(first, tensors, range(2))
    state = first.state_dict()
    del state["steps"]
    second.load_state_dict(state, tensors)
    np.testing.assert_array_equal(second.state_dict()["velocity.0"], state["velocity.0"])
    with pytest.raises(CheckpointError, match="step count"):
        second.load_state_dict(state | {"steps": np.array(-1)}, tensors)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_updates_do_not_depend_on_blocks_or_memory_order(make) -> None:
    large = parameters(size=20_000)
    scattered = [Tensor(np.asfortranarray(tensor), watch=True) for tensor in parameters(size=20_000)]
    train(make(), large, range(3))
    train(make(), scattered, range(3))
    np.testing.assert_allclose(large[0], scattered[0], rtol=1e-12)  # the norm is summed in another order


@pytest.mark.parametrize("make", OPTIMIZERS)
@given(small=st.integers(0, 40), decay=st.sampled_from([0.0, 0.1]))
def test_parameters_that_are_updated_together_get_the_same_bits(make, small: int, decay: float) -> None:
    shapes = [((), "f4"), ((2, 3), "f4"), ((3, 4), "f8"), ((7,), "f4"), ((0, 2), "f8"), ((5, 8), "f4"), ((4,), "f8")]

    def bits(limit: int) -> list[bytes]:
        rng, optimizer = np.random.default_rng(1), make()
        tensors = [Tensor(np.asfortranarray(rng.standard_normal(shape).astype(dtype))) for shape, dtype in shapes]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(optimizer_module, "SMALL_ELEMENTS", limit)
            train(optimizer, tensors, range(2))
            optimizer.weight_decay = decay  # users may change settings between epochs
            train(optimizer, tensors, range(2, 35))
            resumed = make()
            resumed.weight_decay = decay
            resumed.load_state_dict(optimizer.state_dict(), tensors)
            train(resumed, tensors, range(35, 37))
        return [array.tobytes() for array in (*tensors, *resumed.state_dict().values())]

    assert bits(small) == bits(-1)


def test_parameters_of_other_shapes_than_before_are_rejected_and_change_nothing() -> None:
    adam, tensors = Adam(clip_norm=1e-3), parameters()
    train(adam, tensors, range(1))
    before = {name: array.tobytes() for name, array in adam.state_dict().items()}
    for others in (parameters(size=4), parameters()[:1], parameters(np.float32)):
        given_gradients = gradients(others, 1)
        with pytest.raises(ShapeError, match="other shapes or dtypes than in earlier steps"):
            adam.apply(others, given_gradients, 0.1)
        np.testing.assert_array_equal(given_gradients[0], gradients(others, 1)[0])
    assert {name: array.tobytes() for name, array in adam.state_dict().items()} == before


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])
def test_a_copy_of_an_optimizer_goes_on_with_the_same_bits(make, duplicate) -> None:
    first, tensors = make(), parameters()
    train(first, tensors, range(2))
    second, others = duplicate(first), [Tensor(tensor.copy()) for tensor in tensors]
    train(first, tensors, range(2, 4))
    train(second, others, range(2, 4))
    ours, theirs = [*tensors, *first.state_dict().values()], [*others, *second.state_dict().values()]
    assert [array.tobytes() for array in ours] == [array.tobytes() for array in theirs]


def test_parameters_that_share_memory_are_updated_one_after_the_other() -> None:
    weight = Tensor(np.zeros((2, 2)))
    SGD(0.1).apply([weight, weight.T], [np.ones((2, 2)), np.ones((2, 2))], 0.1)
    np.testing.assert_array_equal(weight, np.full((2, 2), -0.2))


def test_large_groups_are_divided(monkeypatch) -> None:
    monkeypatch.setattr(optimizer_module, "GROUP_ELEMENTS", 15)
    divided, whole = parameters(), parameters()
    train(Adam(), [*divided, *parameters()], range(3))
    monkeypatch.undo()
    train(Adam(), [*whole, *parameters()], range(3))
    np.testing.assert_array_equal(divided[0], whole[0])
    np.testing.assert_array_equal(divided[1], whole[1])


def test_parameters_are_updated_in_place() -> None:
    tensors = parameters()
    memory = [np.asarray(tensor) for tensor in tensors]
    train(Adam(0.1), tensors, range(1))
    for tensor, array in zip(tensors, memory, strict=True):
        np.testing.assert_array_equal(tensor, array)
        assert tensor.watched


def test_a_state_that_does_not_fit_is_rejected() -> None:
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
    with pytest.raises(CheckpointError, match="are inconsistent"):
        Adam().load_state_dict(state, tensors)


def test_wrong_shapes_and_settings_are_rejected() -> None:
    with pytest.raises(ShapeError, match=r"\(3, 4\) and gradient \(2,\)"):
        SGD(0.1).apply(parameters(), parameters()[::-1], 0.1)
    with pytest.raises(ShapeError, match="2 parameters but 1"):
        Adam().apply(parameters(), parameters()[:1], 0.1)
    invalid_settings = [
        (SGD, {"learning_rate": 0}, "learning_rate"),
        (SGD, {"learning_rate": 0.1, "momentum": 1}, "momentum"),
        (SGD, {"learning_rate": 0.1, "nesterov": True}, "nesterov"),
        (SGD, {"learning_rate": 0.1, "weight_decay": -0.1}, "weight_decay"),
        (SGD, {"learning_rate": 0.1, "clip_norm": 0}, "clip_norm"),
        (Adam, {"beta1": 1}, "beta1"),
        (Adam, {"epsilon": 0}, "epsilon"),
        (Adam, {"clip_norm": math.inf}, "clip_norm"),
        (AdamW, {"weight_decay": math.nan}, "weight_decay"),
    ]
    for kind, settings, name in invalid_settings:
        with pytest.raises(SettingError) as caught:
            kind(**settings)
        assert caught.value.setting == name
