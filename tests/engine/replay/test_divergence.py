"""Steps that a plan cannot repeat, although the verification after tracing happens to succeed."""

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine import SGD, EngineError, GradientTape, Tensor, generator_for, ops
from engine.optim.optimizer import clip_by_global_norm
from engine.replay import Replay

Step = Callable[..., list[np.ndarray]]


def run(step: Step, *inputs: np.ndarray) -> Replay:
    """Replay the step for each of these inputs in turn, and compare it with the plain step."""
    replay = Replay([])
    rngs = [generator_for(0, "test") for _ in range(2)]
    for x in inputs:
        for got, expected in zip(replay(step, x.copy(), rng=rngs[0]), step(x.copy(), rng=rngs[1]), strict=True):
            assert (got.shape, got.dtype, got.tobytes()) == (expected.shape, expected.dtype, expected.tobytes())
    assert rngs[0].random() == rngs[1].random()
    return replay


def writing_step(write: Callable[[np.ndarray], object]) -> Step:
    """A step that writes to an array by a call that NumPy does not report as a write."""

    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        h = x * 2
        write(h)
        return [h + 1]

    return step


WRITES = {
    "clip with a target by position": lambda h: np.clip(h, -1.0, 1.0, h),
    "round with a target by position": lambda h: np.round(h, 0, h),
    "nan_to_num without a copy": lambda h: np.nan_to_num(h, copy=False),
    "take with a target by position": lambda h: np.take(h * 3, [0, 1, 2], 0, h),
    "cumsum with a target by position": lambda h: np.cumsum(h, 0, None, h),
    "a median that sorts in place": lambda h: np.median(h, 0, None, True),
    "a plain view": lambda h: (
        np.asarray(h).fill(0) if h.max() is None else np.multiply(np.asarray(h), 3, np.asarray(h))
    ),
    "clipping": lambda h: clip_by_global_norm([h], 3.0),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_that_has_an_effect_only_on_later_values_is_not_lost(write: Any) -> None:
    same, other = np.array([0.0, 0.0, 0.0]), np.array([np.nan, 3.3, -2.6])
    run(writing_step(write), same, same, other, same)


DATA_DEPENDENT_SHAPES = {
    "flatnonzero": lambda x: np.flatnonzero(x),
    "bincount": lambda x: np.bincount(x.astype(np.int64)),
    "extract": lambda x: np.extract(x > 1, x),
    "compress": lambda x: np.compress(x > 1, x),
    "unique": lambda x: np.unique(x),
    "trim_zeros": lambda x: np.trim_zeros(x),
}


@pytest.mark.parametrize("function", DATA_DEPENDENT_SHAPES.values(), ids=DATA_DEPENDENT_SHAPES)
def test_a_shape_can_depend_on_the_data(function: Any) -> None:
    def step(x: np.ndarray, *, rng: np.random.Generator) -> list[np.ndarray]:
        return [x * rng.random(4), function(x)]

    usual = np.array([0.0, 2.0, 2.0, 3.0])
    run(step, usual, usual, usual[::-1].copy(), np.array([0.0, 0.0, 2.0, 9.0]), np.zeros(4), usual)


def test_a_changed_shape_rolls_back_the_writes_of_the_plan() -> None:
    mean = np.zeros(2)

    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        target = mean.view(type(x)) if type(x) is not np.ndarray else mean
        np.add(target, x[:2], out=target)
        return [x * 2, np.flatnonzero(x)]

    replay = Replay([], changing=[mean])
    for x in ([1.0, 2.0, 0.0], [1.0, 3.0, 0.0], [1.0, 3.0, 4.0], [0.0, 0.0, 4.0]):
        replay(step, np.array(x))
    assert mean.tolist() == [3, 8]


def test_a_result_can_be_the_next_input() -> None:
    def first(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        return [x * 2, np.exp(x) @ np.exp(-x)]

    def second(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        return [x + 1]  # needs less memory: its plan overlaps that of the first in memory

    replay = Replay([])
    for _ in range(3):
        replay(first, np.ones(3))
    for i in range(6):
        doubled, _ = replay(first, np.full(3, float(i)))
        assert replay(second, doubled)[0].tolist() == [2 * i + 1] * 3
    assert len(replay.plans) == 2


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_update_inside_a_step_is_applied_in_every_step(momentum: float) -> None:
    def losses(enabled: bool) -> list[float]:
        w, optimizer = Tensor(np.array([1.0, 2.0]), watch=True), SGD(0.1, momentum)

        def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
            with GradientTape() as tape:
                loss = ops.squared_error(w * x, 1.0)
            optimizer.apply([w], [np.asarray(g) for g in tape.gradient(loss, [w])], 0.1)
            return [np.asarray(loss)]

        replay = Replay([w], enabled=enabled)
        return [float(replay(step, np.ones(2))[0]) for _ in range(6)]

    assert losses(True) == losses(False)


def test_a_write_to_a_resident_array_through_an_old_view_happens_once_per_step() -> None:
    w = np.zeros(2)
    view = w[:]

    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        view[...] += 1
        return [x * 2]

    replay = Replay([w])
    for i in range(1, 5):
        replay(step, np.ones(2))
        assert w.tolist() == [i, i]

    def failing(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        view[...] += 1
        return [x * float(x[0])]

    with pytest.raises(EngineError, match="changed a resident array"):
        replay(failing, np.ones(2))


def test_a_value_that_leaves_the_trace_as_a_numpy_scalar_is_detected() -> None:
    for leak in (np.float64, np.float32, lambda value: np.array(value), lambda value: np.asarray(value) * 2):
        run(lambda x, rng, leak=leak: [x * leak(np.max(x))], *(np.array([1.0, y, 2.0]) for y in (0.5, 0.7, 9.0, 0.5)))


@pytest.mark.parametrize("reduction", [np.mean, np.sum, lambda y: np.mean(y, axis=0).sum(), lambda y: (y * 0.5).mean()])
def test_a_loss_that_ends_in_a_numpy_reduction_is_replayed(reduction: Any) -> None:
    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        w = Tensor(x, watch=True)
        with GradientTape() as tape:
            loss = reduction(np.tanh(w * 2) ** 2)
        return [np.asarray(array) for array in (loss, *tape.gradient(loss, [w]))]

    input_rng = np.random.default_rng(0)
    assert len(run(step, *(input_rng.standard_normal((3, 4)) for _ in range(4))).plans) == 1


def test_output_gradients_can_be_computed_in_the_step() -> None:
    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        w = Tensor(x, watch=True)
        with GradientTape() as tape:
            y = np.tanh(w)
        return [np.asarray(g) for g in tape.gradient(y, [w], output_gradients=x * 3)]

    input_rng = np.random.default_rng(0)
    assert len(run(step, *(input_rng.standard_normal(3) for _ in range(4))).plans) == 1


def test_a_gradient_that_is_the_same_in_each_step_can_be_written_to() -> None:
    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        w = Tensor(x, watch=True)
        with GradientTape() as tape:
            loss = np.sum(w)
        return [np.asarray(g) for g in tape.gradient(loss, [w])]

    replay = Replay([])
    for _ in range(4):
        (gradient,) = replay(step, np.ones(3))
        assert gradient.tolist() == [1, 1, 1]
        gradient *= 5


CONVERSIONS: dict[str, Callable[[Any], float]] = {
    "a condition": lambda h: 2.0 if h[0] > 5 else 1.0,
    "a condition on a difference": lambda h: 2.0 if np.sum(h) - 100 else 1.0,
    "float": lambda h: min(float(h[0]), 1.0),
    "int": lambda h: int(h[0]),
    "complex": lambda h: complex(h[0]).real // 1,
    "a position": lambda h: [1.0, 2.0][np.argmin(h)],
    "contains": lambda h: 2.0 if 9 in h else 1.0,
    "item": lambda h: h[0].item() // 1,
    "tolist": lambda h: h.tolist()[0] // 1,
    "tobytes": lambda h: np.frombuffer(h.tobytes())[0] // 1,
    "format": lambda h: float(f"{h[0]:.0f}"),
    "str": lambda h: float(str(h[0])) // 1,
    "repr": lambda h: float(repr(h[0]).partition("(")[2][0]),
    "math": lambda h: math.floor(math.sqrt(h[0])),
    "the method argmax": lambda h: h.argmax(),
    "the method any": lambda h: 2.0 if (h > 5).any() else 1.0,
    "an element of a mask": lambda h: 2.0 if (h > 5)[0] else 1.0,
    "the method nonzero": lambda h: len((h > 5).nonzero()[0]),
    "array_equal": lambda h: 2.0 if np.array_equal(h > 5, h > 0) else 1.0,
    "allclose": lambda h: 2.0 if np.allclose(h > 5, h > 0) else 1.0,
}


@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
def test_a_tensor_that_becomes_a_python_value_is_not_traced(convert: Any) -> None:
    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        w = Tensor(x, watch=True)
        with GradientTape() as tape:
            h = np.tanh(w) + w
            y = np.sum(h * convert(h))
        return [np.asarray(array) for array in (y, *tape.gradient(y, [w]))]

    inputs = [np.array([value, 1.2]) for value in (1.1, 1.15, 8.0, 1.1)]
    assert not run(step, *inputs).plans


@pytest.mark.parametrize("read", [lambda w: w[0] > 5, lambda w: pickle.loads(pickle.dumps(w)).tolist()[0] > 5])
def test_a_parameter_that_becomes_a_python_value_is_not_traced(read: Any) -> None:
    w = Tensor(np.array([0.0, 1.0]), watch=True)

    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        return [x * 2 if read(w) else x * 3]

    replay = Replay([w])
    assert [replay(step, np.ones(1))[0].tolist() for _ in range(3)] == [[3]] * 3
    w += 9
    assert replay(step, np.ones(1))[0].tolist() == [2]


def test_a_plan_that_is_verified_again_is_dropped_if_it_differs_from_the_tape() -> None:
    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        return [x * min(float(np.asarray(x)[0]), 3.0)]

    replay = Replay([])
    assert [replay(step, np.array([value]))[0].tolist() for value in (4.0, 5.0, 6.0)] == [[12], [15], [18]]
    replay.verify_again()
    assert replay(step, np.array([7.0]))[0].tolist() == [21]
    assert replay(step, np.array([2.0]))[0].tolist() == [6]  # not verified: min() is a constant of the plan
    replay.verify_again()
    with pytest.warns(RuntimeWarning, match=r"step: its replay and the tape differ.*np\.asarray\(tensor\)"):
        assert replay(step, np.array([2.0]))[0].tolist() == [4]
    assert not replay.plans
    assert replay(step, np.array([1.0]))[0].tolist() == [1]
