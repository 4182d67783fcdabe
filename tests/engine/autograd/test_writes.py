"""Writes to tensors on a tape are refused until the gradient is computed, by the engine or by NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine import SGD, Dense, GradientError, GradientTape, Sequential, Tensor, generator_for


def watched(values: Any) -> Tensor:
    return Tensor(np.array(values, np.float64), watch=True)


REFUSED = "in-place write|read-only|output array is not acceptable"
"""Messages of the engine and of NumPy, which refuses to write into read-only arrays."""

IN_PLACE_WRITES: dict[str, Callable[[Any], object]] = {
    "copyto by keyword": lambda x: np.copyto(src=np.zeros(3), dst=x),
    "place by keyword": lambda x: np.place(mask=np.array([True, False, True]), vals=[0.0], arr=x),
    "put by keyword": lambda x: np.put(ind=[0], v=[5.0], a=x),
    "putmask by keyword": lambda x: np.putmask(x, mask=np.array([True, False, True]), values=[0.0]),
    "dot by position": lambda x: np.dot(np.eye(3), np.ones(3), x),
    "the method dot by position": lambda x: Tensor(np.eye(3)).dot(np.ones(3), x),
    "take by position": lambda x: np.take(Tensor(np.ones(3)), [0, 1, 2], 0, x),
    "the method take by position": lambda x: Tensor(np.ones(3)).take([0, 1, 2], 0, x),
    "compress by position": lambda x: np.compress([True] * 3, Tensor(np.ones(3)), 0, x),
    "the method compress by position": lambda x: Tensor(np.ones(3)).compress([True] * 3, 0, x),
    "the method clip by position": lambda x: Tensor(np.ones(3)).clip(0, 0.5, x),
    "the method round by position": lambda x: Tensor(np.ones(3)).round(0, x),
    "the method any by keyword": lambda x: Tensor(np.ones((1, 3))).any(axis=0, out=x),
    "the method sum by position": lambda x: Tensor(np.ones((1, 3))).sum(0, None, x),
    "nan_to_num without a copy": lambda x: np.nan_to_num(x, copy=False),
    "nan_to_num without a copy, by position": lambda x: np.nan_to_num(x, False),
    "a percentile that sorts in place": lambda x: np.percentile(x, 50, 0, None, True),
    "an optimizer": lambda x: SGD(0.1).apply([x], [np.ones(3)], 0.1),
    "another shape": lambda x: setattr(x, "shape", (3, 1)),
    "another dtype": lambda x: setattr(x, "dtype", np.int64),
}


@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")
@pytest.mark.parametrize("write", IN_PLACE_WRITES.values(), ids=IN_PLACE_WRITES)
def test_no_write_to_a_tensor_held_by_a_tape_is_allowed(write: Any) -> None:
    x = watched([1.0, 2.0, 3.0])
    with GradientTape() as tape:
        y = np.sum(x * x)
    with pytest.raises((GradientError, ValueError), match=REFUSED):
        write(x)
    assert tape.gradient(y, [x])[0].tolist() == [2, 4, 6]


@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")
def test_tensors_not_held_by_a_tape_can_be_written_in_every_way() -> None:
    for name, write in IN_PLACE_WRITES.items():
        x = watched([1.0, 2.0, 3.0])
        if name != "the method any by keyword":  # NumPy requires another dtype
            write(x)


def test_the_shape_of_a_recorded_result_cannot_be_set() -> None:
    x = watched([1.0, 2.0, 3.0, 4.0])
    with GradientTape():
        y = x * 2
        with pytest.raises(GradientError, match="in-place write"):
            y.shape = (2, 2)


def test_weights_cannot_be_loaded_while_a_tape_holds_them() -> None:
    model = Sequential([Dense(2, 1, rng=generator_for(0, "init"))])
    state = model.state_dict()
    with GradientTape() as tape:
        y = np.sum(model(np.ones((1, 2), np.float32)))
    with pytest.raises(GradientError, match="in-place write"):
        model.load_state_dict(state)
    tape.gradient(y, model.parameters)


PLAIN_WRITES: dict[str, Callable[[Any], object]] = {
    "an assignment": lambda h: np.asarray(h).__setitem__(..., 5),
    "an assignment to a view": lambda h: h.view(np.ndarray)[1:].fill(5),
    "a target": lambda h: np.multiply(np.ones(3), 5, out=np.asarray(h)),
    "a method with a target": lambda h: np.ones((2, 3)).cumsum(axis=0)[1].take([0, 1, 2], out=np.asarray(h)),
    "a buffer": lambda h: memoryview(h).__setitem__(0, 5.0),
    "a stride trick": lambda h: np.lib.stride_tricks.as_strided(h, (2,), (8,)).fill(5),
    "an iterator": lambda h: next(np.nditer(np.asarray(h), op_flags=[["readwrite"]]))[...].fill(5),
    "a draw": lambda h: np.random.default_rng(0).random(out=np.asarray(h)),
    "a permutation": lambda h: np.random.default_rng(0).shuffle(np.asarray(h)),
    "a sort": lambda h: np.asarray(h)[::-1].sort(),
}


@pytest.mark.parametrize("write", PLAIN_WRITES.values(), ids=PLAIN_WRITES)
def test_a_result_cannot_be_written_to_as_a_plain_array_until_the_gradient_is_computed(write: Any) -> None:
    x = watched([1.0, 2.0, 3.0])
    with GradientTape() as tape:
        h = np.exp(x)
        y = np.sum(h * h)
        with pytest.raises((ValueError, TypeError), match=r"read-only|writable"):
            write(h)
    with pytest.raises((ValueError, TypeError), match=r"read-only|writable"):
        write(h)
    np.testing.assert_array_equal(tape.gradient(y, [x])[0], 2 * np.exp(x) * np.exp(x))
    write(h)
    assert h.tolist() != np.exp(x).tolist()


def test_tensors_are_as_writeable_after_a_tape_as_before() -> None:
    x, constant, fixed = watched([1.0, 2.0]), Tensor(np.ones(3)), watched([1.0, 2.0])
    view = constant[1:]
    fixed.flags.writeable = False
    with GradientTape() as tape:
        y = x * view
        tensors = [x, view, constant, y, y[:1], np.reshape(x, (2, 1)) + fixed, fixed]
        assert not any(tensor.flags.writeable for tensor in tensors)
    del tape
    assert [tensor.flags.writeable for tensor in tensors] == [True] * 6 + [False]
    with pytest.raises(ZeroDivisionError), GradientTape():
        x * (1 // 0 * x)
    assert x.flags.writeable


@pytest.mark.parametrize("write", IN_PLACE_WRITES.values(), ids=IN_PLACE_WRITES)
@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")
def test_a_watched_tensor_cannot_be_written_to_before_its_first_use_on_a_running_tape(write: Any) -> None:
    x = watched([1.0, 2.0, 3.0])
    with GradientTape() as tape:
        with pytest.raises(GradientError, match=r"a watched tensor .* while a tape is running|has no gradient"):
            write(x)
        y = np.sum(x * x)
    assert tape.gradient(y, [x])[0].tolist() == [2, 4, 6]
