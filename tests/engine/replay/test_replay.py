"""Replay produces the same bits as the plain tape, and its memory does not grow."""

import copy
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest

from engine import (
    EngineError,
    GradientTape,
    Tensor,
    generator_for,
    ops,
)
from engine.replay import Replay


def doubled(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
    return [np.add(x, x)]


def test_inputs_are_copied_unless_they_are_resident() -> None:
    replay, x = Replay([]), np.arange(3.0)
    replay(doubled, x)
    assert replay(doubled, x + 1)[0].tolist() == [2, 4, 6]
    assert x.tolist() == [0, 1, 2]
    resident = Replay([x])
    resident(doubled, x)
    x += 1
    assert resident(doubled, x)[0].tolist() == [2, 4, 6]


LEAKS = {
    "a number for Python": lambda x, rng: [x * float(x[0])],
    "a condition": lambda x, rng: [x * 2 if x[0] > 1 else x * 3],
    "an element": lambda x, rng: [x * x.tolist()[0]],
    "a loop": lambda x, rng: [x * sum(x)],
    "a mask": lambda x, rng: [np.resize(np.asarray(x[x > 1.5]), 3)],
    "an index": lambda x, rng: [x[np.asarray(x).astype(int) % 2]],
    "memory unseen": lambda x, rng: [x + np.asarray(x) * 2],
    "a result unseen": lambda x, rng: [np.asarray(x) * 2],
    "a method unseen": lambda x, rng: [x * x.argmax()],
    "a function with a target": lambda x, rng: [np.cumsum(x, out=np.empty(3))],
    "an accumulation": lambda x, rng: [np.add.accumulate(x)],
    "two outputs": lambda x, rng: [np.divmod(x, 2)[1]],
    "randomness first": lambda x, rng: [rng.random(3) + x, x * float(x[0])],
    "a number of NumPy's": lambda x, rng: [x - np.asarray(x).mean()],
    "a number in secret": lambda x, rng: [x * float(np.asarray(x)[0])],
    "a condition in secret": lambda x, rng: [x * 2 if np.asarray(x)[0] > 1 else x * 3],
    "a position in secret": lambda x, rng: [x[int(np.asarray(x).argmin())] * x],
    "row numbers by chance": lambda x, rng: [x[np.flatnonzero(np.asarray(x) == np.asarray(x).min())] * x],
    "a copy without axes": lambda x, rng: [x * np.array(np.sum(x))],
    "another copy without axes": lambda x, rng: [x * copy.copy(np.sum(x))],
    "a view without axes": lambda x, rng: [x + np.sum(x).view(np.ndarray) * 2],
    "an iterator": lambda x, rng: [x * x.flat[0]],
    "a power of a number": lambda x, rng: [np.sum(x) ** 1.5 * x, 1.5 ** np.sum(x) * x],
    "a method with options": lambda x, rng: [x.astype(np.float64, copy=False) * 2],
    "numbers shuffled": lambda x, rng: [shuffled(x * 1, rng)],
    "a generator's inside": lambda x, rng: [x * (rng.bit_generator.state["state"]["state"][0] % 7)],
    "numbers drawn into an array": lambda x, rng: [rng.random(out=np.zeros_like(x)) + x],
    "a write to an input": lambda x, rng: [np.add(x, 1, out=x) * 2],
    "an element of an input": lambda x, rng: [x.__setitem__(0, 5.0) or x * 2],
}


def shuffled(x: np.ndarray, rng: Any) -> np.ndarray:
    rng.shuffle(x)
    return x * 2


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
def test_steps_that_cannot_be_replayed_run_on_the_tape(leak: Any) -> None:
    def step(x: np.ndarray, *, rng: np.random.Generator) -> list[np.ndarray]:
        return leak(x, rng)

    replay = Replay([])
    rngs = [generator_for(0, "test") for _ in range(2)]
    for x in (np.array([1.0, 2.0, 3.0]), np.array([3.0, 1.0, 7.0]), np.array([2.0, 3.0, 1.0])):
        for got, expected in zip(replay(step, x.copy(), rng=rngs[0]), step(x.copy(), rng=rngs[1]), strict=True):
            assert got.tobytes() == expected.tobytes()
    assert not replay.plans
    assert rngs[0].random() == rngs[1].random()


REPLAYABLE = {
    "overlapping views": lambda x, rng: [add_shifted(x * 2)],
    "over a transposed argument": lambda x, rng: [(lambda y: y + y.T)(x * 2)],
    "over a broadcast argument": lambda x, rng: [(lambda y: y * y[0])(x * 2)],
    "backwards": lambda x, rng: [(lambda y: y[::-1] * 1.0 * y)(x * 2)],
    "one result twice": lambda x, rng: [x * 2] * 2,
    "views of an input": lambda x, rng: [x, x[::2], x.T],
    "no call at all": lambda x, rng: [x],
    "an element by its position": lambda x, rng: [x.reshape(-1)[np.argmax(x)] * x, np.take(x, np.argmin(x)) * x],
    "a number drawn": lambda x, rng: [x * rng.integers(0, 9), rng.permutation(x) * 2],
    "memory filled in place": lambda x, rng: [add_shifted(np.zeros_like(x) + x)[::-1]],
    "functions without out": lambda x, rng: [np.sort(x), np.einsum("ij,jk", x, x), np.concatenate([x, x * 2])],
    "numbers without axes": lambda x, rng: [np.sum(x) * np.max(x) / np.mean(x) - 1, np.linalg.norm(x)],
}


def add_shifted(y: np.ndarray) -> np.ndarray:
    y[1:] += y[:-1]
    y[:, 0] = y[0] * 2
    return y


@pytest.mark.parametrize("shape", [(3, 3), (7, 7)])
@pytest.mark.parametrize("name", REPLAYABLE)
def test_replayable_steps_produce_the_same_bits(name: str, shape: tuple[int, int]) -> None:
    def step(x: np.ndarray, *, rng: np.random.Generator) -> list[np.ndarray]:
        return REPLAYABLE[name](x, rng)

    replay, input_rng = Replay([]), np.random.default_rng(0)
    rngs = [generator_for(0, "test") for _ in range(2)]
    for _ in range(5):
        x = input_rng.standard_normal(shape)
        for got, expected in zip(replay(step, x.copy(), rng=rngs[0]), step(x, rng=rngs[1]), strict=True):
            assert (got.shape, got.dtype, got.tobytes()) == (expected.shape, expected.dtype, expected.tobytes())
    assert len(replay.plans) == 1


def test_empty_and_zero_dimensional_arrays_are_replayed() -> None:
    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        return [np.exp(x) * 2, np.sum(x), x + 1]

    replay = Replay([])
    for x in (np.zeros((0, 3)), np.array(0.5), np.zeros((0, 3)), np.array(1.5), np.zeros((0, 3)), np.array(2.5)):
        for got, expected in zip(replay(step, x), step(x, rng=None), strict=True):
            assert (got.shape, got.tobytes()) == (expected.shape, expected.tobytes())
    assert len(replay.plans) == 2


def test_a_step_that_counts_its_calls_is_detected_and_run_once_per_call() -> None:
    calls = []

    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        calls.append(1)
        return [x * len(calls)]

    replay = Replay([])
    assert [replay(step, np.ones(1))[0].tolist() for _ in range(4)] == [[1], [2], [3], [4]]


def test_values_that_a_step_reads_from_outside_keep_the_traced_value() -> None:
    settings = {"rate": 2.0}

    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        return [x * settings["rate"]]

    replay = Replay([])
    for _ in range(2):
        replay(step, np.ones(1))
    settings["rate"] = 3.0
    assert replay(step, np.ones(1))[0].tolist() == [2]  # as documented
    assert Replay([])(step, np.ones(1))[0].tolist() == [3]


def test_row_major_and_column_major_inputs_have_separate_plans() -> None:
    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        return [np.add(x, x), np.sum(np.multiply(x, 0.1), axis=0)]

    replay, rng = Replay([]), np.random.default_rng(0)
    for _ in range(3):
        for arrange in (np.ascontiguousarray, np.asfortranarray):
            x = arrange(rng.random((30, 40), np.float32))
            results = replay(step, x)
            assert results[0].strides == x.strides
            assert [array.tobytes() for array in results] == [array.tobytes() for array in step(x, rng=None)]
    assert len(replay.plans) == 2


def test_inputs_in_any_memory_layout_produce_the_bits_of_that_layout() -> None:
    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        return [x @ x, x.sum(axis=0), x.sum()]

    replay, rng = Replay([]), np.random.default_rng(0)
    layouts = [lambda x: x, np.asfortranarray, lambda x: np.repeat(x, 2, axis=1)[:, ::2]]
    for layout in layouts * 3:
        x = layout(rng.random((37, 37)))
        for got, expected in zip(replay(step, x), step(x, rng=None), strict=True):
            assert got.tobytes() == expected.tobytes()


def test_parts_of_a_resident_array_are_read_without_a_copy_and_never_written() -> None:
    data = np.arange(12.0)
    replay, parts = Replay([data]), (data[:4], data[4:8], np.ones(4), data[::3])
    for _ in range(3):
        for part in parts:
            assert replay(doubled, part)[0].tolist() == (part * 2).tolist()
    assert data.tolist() == list(range(12))
    operands = [plan.calls[0].args[0] for plan in replay.plans]
    assert [np.shares_memory(*pair) for pair in zip(operands, parts, strict=True)] == [True, True, False, True]


def test_an_input_can_contain_a_resident_array() -> None:
    data = np.arange(12.0)
    replay = Replay([data[:4]])
    for _ in range(4):
        for numbers in (data, np.zeros(12)):
            assert replay(doubled, numbers)[0].tolist() == (numbers * 2).tolist()
    assert data.tolist() == list(range(12))


def test_a_write_to_a_resident_array_happens_once_per_call_on_the_plain_tape() -> None:
    mean = np.zeros(2)

    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        np.add(mean, x, out=mean)
        return [x - mean]

    replay = Replay([mean])
    for i in range(1, 4):
        replay(step, np.ones(2))
        assert mean.tolist() == [i, i]
    assert not replay.plans


@pytest.mark.parametrize("traced", [True, False])
def test_arrays_that_a_step_changes_are_verified_too(traced: bool) -> None:
    mean, expected = np.ones(2), np.ones(2)

    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        target = mean.view(type(x)) if traced else mean
        np.multiply(target, 0.5, out=target)
        np.add(mean, x, out=mean)
        return [x * 2]

    replay = Replay([], changing=[mean])
    for i in range(5):
        assert replay(step, np.array([1.0, i]))[0].tolist() == [2, 2 * i]
        expected = expected * 0.5 + [1.0, i]
        assert mean.tolist() == expected.tolist()
    assert len(replay.plans) == traced


def test_steps_with_and_without_a_generator_are_different_steps() -> None:
    def step(x: np.ndarray, *, rng: np.random.Generator | None) -> list[np.ndarray]:
        return [x * 2 if rng is None else x * rng.random(3)]

    replay, x = Replay([]), np.ones(3)
    for seed in range(3):
        assert replay(step, x)[0].tolist() == [2, 2, 2]
        expected = generator_for(seed, "test").random(3)
        assert replay(step, x, rng=generator_for(seed, "test"))[0].tolist() == expected.tolist()


class Scale:
    """Equal to every other Scale, although its step is a different one."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scale)

    def __hash__(self) -> int:
        return 0

    def step(self, x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        return [x * self.factor]


def test_methods_of_equal_objects_are_different_steps() -> None:
    replay, scales = Replay([]), [Scale(2.0), Scale(3.0)]
    for _ in range(3):
        assert [replay(scale.step, np.ones(1))[0].tolist() for scale in scales] == [[2], [3]]


def test_each_dtype_and_shape_has_its_own_plan() -> None:
    replay = Replay([])
    for _ in range(3):
        for x in (np.ones(3), np.ones(3, np.float32), np.ones((3, 1)), np.ones(3, np.int64)):
            result = replay(doubled, x)[0]
            assert (result.dtype, result.shape, result.tolist()) == (x.dtype, x.shape, (2 * x).tolist())
    assert len(replay.plans) == 4


def test_functions_created_for_each_call_do_not_accumulate() -> None:
    replay = Replay([])
    for i in range(100):
        assert replay(lambda x, rng, i=i: [x * i], np.ones(1))[0].tolist() == [i]
    assert len(replay.plans) == 64


def test_a_replay_inside_a_step_of_another_replay_is_part_of_that_step() -> None:
    inner, outer = Replay([]), Replay([])

    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        return [inner(doubled, x)[0] + x]

    for i in range(4):
        assert outer(step, np.array([1.0, i]))[0].tolist() == [3, 3 * i]
    assert (len(outer.plans), len(inner.plans)) == (1, 1)  # the inner plan is from the verification of the outer one


def test_a_replay_cannot_be_used_by_two_threads_at_the_same_time() -> None:
    shared, errors = Replay([]), []

    def intrude() -> None:
        try:
            shared(doubled, np.ones(1))
        except EngineError as error:
            errors.append(str(error))

    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
        return [x * 2]

    shared(step, np.ones(1))
    assert errors == ["a Replay is used by two threads at the same time; create one for each thread"]


def test_a_step_that_fails_while_it_is_traced_can_be_traced_again() -> None:
    fails = [True]

    def step(x: np.ndarray, *, rng: np.random.Generator) -> list[np.ndarray]:
        y = x * rng.random(2)
        if fails[0]:
            raise ZeroDivisionError
        return [y]

    replay = Replay([])
    with pytest.raises(ZeroDivisionError):
        replay(step, np.ones(2), rng=generator_for(0, "test"))
    fails[0] = False
    for seed in range(4):
        expected = generator_for(seed, "test").random(2)
        assert replay(step, np.ones(2), rng=generator_for(seed, "test"))[0].tolist() == expected.tolist()
    assert len(replay.plans) == 1


def test_a_trace_does_not_keep_arrays_that_the_step_has_dropped() -> None:
    def chain(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        for _ in range(50):
            x = np.tanh(x)
        return [x]

    x, replay = np.ones(100_000), Replay([])
    tracemalloc.start()
    try:
        for _ in range(3):
            tracemalloc.reset_peak()
            replay(chain, x)
            assert tracemalloc.get_traced_memory()[1] < 5 * x.nbytes  # instead of 50
    finally:
        tracemalloc.stop()


def test_random_numbers_are_drawn_anew_in_each_replay() -> None:
    def step(x: np.ndarray, *, rng: np.random.Generator) -> list[np.ndarray]:
        return [x * rng.standard_normal(3) + rng.integers(0, 9, 3)]

    replay, x = Replay([]), np.ones(3)
    for seed in range(3):
        expected = step(x, rng=generator_for(seed, "test"))[0]
        assert replay(step, x, rng=generator_for(seed, "test"))[0].tolist() == expected.tolist()
    assert len(replay.plans) == 1


def test_an_error_in_the_step_ends_the_trace() -> None:
    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Replay([])(step, np.ones(2))
    w = Tensor(np.ones(2), watch=True)
    with GradientTape() as tape:
        y = ops.sum(w * 2)
    assert type(np.asarray(tape.gradient(y, [w])[0])) is np.ndarray
    assert type(ops.tanh(np.ones(2))) is np.ndarray


def test_memory_is_not_reused_while_its_value_is_needed() -> None:
    """Many values with different lifetimes: the results are wrong if one is overwritten too early."""

    def step(x: np.ndarray, *, rng: Any) -> list[np.ndarray]:
        values = [x]
        for i in range(40):
            values.append(np.sin(values[-1] + values[i // 2]) * values[(7 * i) % len(values)])
            values[-1] += 0.5
        return [values[20] @ values[40].T, values[33], sum_of(values)]

    def sum_of(values: list[np.ndarray]) -> np.ndarray:
        total = values[0] * 1.0
        for value in values[1:]:
            total = total + value
        return total

    replay, rng = Replay([]), np.random.default_rng(0)
    for _ in range(3):
        x = rng.random((8, 8))
        for got, expected in zip(replay(step, x), step(x, rng=None), strict=True):
            assert got.tobytes() == expected.tobytes()
    assert len(replay.plans) == 1
    assert replay.size_bytes < 60 * x.nbytes  # of some 200 results
