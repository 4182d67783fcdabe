"""Programs that could silently get a wrong gradient: each gets the correct one or an error."""

import array
import copy
import pickle
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine import (
    SGD,
    BinaryCrossEntropy,
    Dense,
    Dropout,
    Flatten,
    GradientError,
    GradientTape,
    Sequential,
    SettingError,
    ShapeError,
    SoftmaxCrossEntropy,
    SquaredError,
    Tensor,
    generator_for,
    gradcheck,
    ops,
)


def watched(values: Any) -> Tensor:
    return Tensor(np.array(values, np.float64), watch=True)


SELECTIONS: dict[str, tuple[Callable[[Any, Any], Any], Any]] = {
    "an index": (lambda x, i: x[i], [0, 0, 2]),
    "an index in a tuple": (lambda x, i: x[None][0, i], [0, 0, 2]),
    "a mask": (lambda x, i: x[i], [True, False, True, False]),
    "take": (lambda x, i: np.take(x, i), [0, 0, 2]),
    "the method take": (lambda x, i: x.take(i), [0, 0, 2]),
    "take_along_axis": (lambda x, i: np.take_along_axis(x, i, 0), [0, 0, 2]),
    "repeat": (lambda x, i: np.repeat(x, i), [0, 3, 1, 1]),
    "where": (lambda x, i: np.where(i, x, x * 2), [True, False, True, False]),
    "ops.where": (lambda x, i: ops.where(i, x, x * 2), [True, False, True, False]),
    "split": (lambda x, i: np.split(x, i)[1] ** 2, [1, 3]),
}


@pytest.mark.parametrize("kind", [np.array, list, Tensor])
@pytest.mark.parametrize("name", SELECTIONS)
def test_overwriting_an_index_or_condition_after_use_keeps_the_gradient(name: str, kind: Any) -> None:
    select, values = SELECTIONS[name]
    if kind is list and name in ("take_along_axis", "ops.where"):
        pytest.skip("takes no list")
    x, index = watched([1.0, 2.0, 3.0, 4.0]), kind(values)

    def gradient(overwrite: bool) -> list[float]:
        with GradientTape() as tape:
            y = np.sum(select(x, index))
        if overwrite:
            index[:] = [values[-1]] * len(values)
        result: list[float] = tape.gradient(y, [x])[0].tolist()
        return result

    assert gradient(overwrite=False) == gradient(overwrite=True)


class Positions:
    """Not a sequence, but convertible to an array."""

    def __init__(self, *positions: int) -> None:
        self.positions = positions

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(self.positions, dtype)


class Position:
    def __index__(self) -> int:
        return 2


@pytest.mark.parametrize("index", [[0, 0, 2], array.array("q", [0, 0, 2]), Positions(0, 0, 2), (slice(None), [1, 1])])
def test_repeated_indices_accumulate_gradients(index: Any) -> None:
    x = np.arange(12.0).reshape(3, 4)
    gradcheck(lambda x: x[index] ** 2, x)


@pytest.mark.parametrize("index", [[], (), Position(), (Position(), None, 1), np.bool_(True), [[]], np.array(1), ...])
def test_every_kind_of_index_selects_as_in_numpy(index: Any) -> None:
    x = np.arange(12.0).reshape(3, 4)
    with GradientTape():
        np.testing.assert_array_equal(Tensor(x, watch=True)[index], x[index])
    gradcheck(lambda x: x[index] ** 2, x)


def test_shared_layers_and_weights_are_rejected() -> None:
    rng = generator_for(0, "init")
    first, second = Dense(3, 3, rng=rng), Dense(3, 3, rng=rng)
    with pytest.raises(SettingError, match="layers 0 and 1 share the weight"):
        Sequential([first, first])
    second.bias = first.bias
    with pytest.raises(SettingError, match="layers 0 and 2 share the bias"):
        Sequential([first, Flatten(), second])
    dropout = Dropout(0.5)
    Sequential([dropout, first, dropout, Dense(3, 3, rng=rng)], (3,))
    x = watched([1.0])
    with pytest.raises(SettingError, match="given twice"):
        SGD(0.1).apply([x, x], [np.ones(1), np.ones(1)], 0.1)
    assert x.tolist() == [1]


@pytest.mark.parametrize("loss", [SquaredError(), SquaredError("sum"), BinaryCrossEntropy()])
def test_targets_have_gradients_too(loss: Any) -> None:
    rng = np.random.default_rng(0)
    gradcheck(loss, rng.standard_normal((3, 2)), rng.uniform(0.2, 0.8, (3, 2)))
    gradcheck(lambda x, t: loss(x, x * 0 + t), rng.standard_normal((3, 2)), rng.uniform(0.2, 0.8, 2))


def test_targets_that_broadcast_have_gradients() -> None:
    rng = np.random.default_rng(0)
    for shape in ((), (2,), (3, 1)):
        gradcheck(ops.squared_error, rng.standard_normal((3, 2)), rng.uniform(0.2, 0.8, shape))
        gradcheck(ops.sigmoid_cross_entropy, rng.standard_normal((3, 2)), rng.uniform(0.2, 0.8, shape))


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("loss", [SquaredError(), BinaryCrossEntropy(), SoftmaxCrossEntropy()])
def test_overwriting_a_target_before_the_gradient_does_not_change_it(loss: Any, labels: bool) -> None:
    x, targets = watched([[0.1, 0.2], [0.3, 0.4]]), np.array([0, 1])
    if not labels:
        if isinstance(loss, SoftmaxCrossEntropy):
            pytest.skip("takes labels only")
        targets = np.array([[0.0, 1.0], [0.5, 0.5]])

    def gradient(overwrite: bool) -> list[list[float]]:
        with GradientTape() as tape:
            value = loss(x, targets)
        if overwrite:
            targets[...] = 1
        result: list[list[float]] = tape.gradient(value, [x])[0].tolist()
        return result

    assert gradient(overwrite=False) == gradient(overwrite=True)


def test_a_target_that_is_a_tensor_cannot_be_overwritten() -> None:
    x, target = watched([[0.1, 0.2]]), Tensor(np.array([[0.5, 0.5]]))
    with GradientTape() as tape:
        loss = SquaredError()(x, target)
    with pytest.raises(GradientError, match="in-place write"):
        target[0] = 1
    tape.gradient(loss, [x])


def test_a_convolution_bias_must_have_one_number_per_filter() -> None:
    x, w = np.ones((1, 3, 3, 1)), np.ones((2, 2, 1, 4))
    for shape in ((1,), (), (1, 4), (3,)):
        with pytest.raises(ShapeError, match=r"conv2d: weight .* and bias .*: the bias must be \(4,\)"):
            ops.conv2d(x, w, np.ones(shape))


def test_a_fill_value_keeps_its_gradient() -> None:
    x = watched(3.0)
    with GradientTape() as tape:
        y = np.sum(np.full_like(Tensor(np.ones((2, 2))), x))
    assert tape.gradient(y, [x])[0].tolist() == 4


@pytest.mark.parametrize("make_copy", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_is_watched_like_its_original(make_copy: Any) -> None:
    for tensor in (watched([1.0, 2.0]), Tensor([1.0, 2.0]), watched(3.0), Tensor([1, 2])):
        copied = make_copy(tensor)
        assert type(copied) is Tensor
        assert (copied.watched, copied.dtype, copied.tolist()) == (tensor.watched, tensor.dtype, tensor.tolist())
        assert not np.shares_memory(copied, tensor)


def test_a_copy_of_a_recorded_tensor_stays_on_the_tape() -> None:
    x = watched([1.0, 2.0])
    with GradientTape() as tape:
        y = np.sum(copy.copy(x * 2) * copy.copy(x))
        with pytest.raises(GradientError, match="pickle has no gradient"):
            pickle.dumps(x * 2)
    assert tape.gradient(y, [x])[0].tolist() == [4, 8]


LOST_GRADIENTS: dict[str, Callable[[Any], Any]] = {
    "a list of tensors": lambda x: np.sum([x * 1, x * 2]) * Tensor([1.0], watch=True),
    "r_": lambda x: np.r_[np.asarray(x), 1.0] * Tensor([1.0], watch=True),
    "a distribution": lambda x: np.random.default_rng(0).normal(x, 1) * Tensor([1.0, 1.0], watch=True),
    "an array that is filled": lambda x: filled(x) * Tensor([1.0, 1.0], watch=True),
    "nothing of it": lambda x: Tensor([1.0], watch=True) * 2,
}


def filled(x: Any) -> Any:
    array = np.zeros(2)
    array[...] = x
    return array


@pytest.mark.parametrize("program", LOST_GRADIENTS.values(), ids=LOST_GRADIENTS)
def test_a_lost_gradient_raises_an_error_with_usual_causes(program: Any) -> None:
    x, used = watched([1.0, 2.0]), watched([3.0, 4.0])
    with GradientTape(persistent=True) as tape:
        y = np.sum(program(x)) + np.sum(used)
        z = np.sum(x)  # recorded after the target
    message = r"does not depend on source 1, of shape \(2,\)\. Usual causes: .*np\.stack"
    with pytest.raises(GradientError, match=message):
        tape.gradient(y, [used, x])
    assert [g.tolist() for g in tape.gradient(y, [used, x], unconnected="zero")] == [[1, 1], [0, 0]]
    assert tape.gradient(z, [x])[0].tolist() == [1, 1]
    with pytest.raises(SettingError, match="neither raise nor zero"):
        tape.gradient(y, [x], unconnected="none")  # type: ignore[arg-type]


def test_output_gradients_on_a_tape_that_cannot_record_the_gradient_are_an_error() -> None:
    x, v = watched([2.0, 3.0]), watched([1.0, 1.0])
    with GradientTape(persistent=True) as earlier:
        y = x**3
    with GradientTape() as tape:
        with pytest.raises(GradientError, match=r"output_gradients is on the running tape.*np\.asarray"):
            earlier.gradient(y, [x], output_gradients=v * 2)
        (constant,) = earlier.gradient(y, [x], output_gradients=np.asarray(v * 2))
        z = np.sum(constant * v)
    assert tape.gradient(z, [v])[0].tolist() == [24, 54]
    assert earlier.gradient(y, [x], output_gradients=v)[0].tolist() == [12, 27]  # no tape is running
    with GradientTape() as outer:
        with GradientTape() as inner:
            y = x**3
        (slope,) = inner.gradient(y, [x], output_gradients=v * 2)
        z = np.sum(slope)
    assert [g.tolist() for g in outer.gradient(z, [x, v])] == [[24, 36], [24, 54]]
    with GradientTape() as tape:  # it stops recording, so that nothing is lost
        y = x**3
        assert tape.gradient(y, [x], output_gradients=v * 2)[0].tolist() == [24, 54]


@pytest.mark.parametrize("make", [lambda t: Tensor(t), lambda t: Tensor([t[0], t[1]]), lambda t: Tensor(t, watch=True)])
def test_a_tensor_made_of_a_tensor_on_a_tape_is_an_error(make: Any) -> None:
    x = watched([1.0, 2.0])
    assert make(x).tolist() == [1, 2]
    with GradientTape():
        for tensor in (x, x * 2):
            with pytest.raises(GradientError, match=r"Tensor\(\.\.\.\) of a tensor on a tape has no gradient"):
                make(tensor)
        assert make(np.asarray(x * 2)).tolist() == [2, 4]


def test_the_gradient_of_a_persistent_tape_inside_its_block_is_recorded() -> None:
    x = watched([2.0, 3.0])
    with GradientTape(persistent=True) as tape:
        y = np.sum(x**3)
        (slope,) = tape.gradient(y, [x])
        (constant,) = tape.gradient(y, [x], create_graph=False)
        z = np.sum(slope * constant) + np.sum(x)
    assert tape.gradient(z, [x])[0].tolist() == [12 * 12 + 1, 18 * 27 + 1]
    with GradientTape(persistent=True, keeps_graph=False) as tape:
        y = np.sum(x**3)
        assert tape.gradient(y, [x])[0].tolist() == [12, 27]
    assert tape.gradient(y, [x])[0].tolist() == [12, 27]


def test_half_precision_is_rejected_where_gradients_would_be_wrong() -> None:
    with pytest.raises(GradientError, match="cannot watch a tensor of dtype float16"):
        Tensor(np.ones(3, np.float16), watch=True)
    x = watched([1.0, 2.0])
    with GradientTape(), pytest.raises(GradientError, match="dtype float16 has no gradient"):
        x.astype(np.float16)
    with pytest.raises(GradientError, match="float16"):
        Dense(2, 2, rng=generator_for(0, "init"), dtype=np.float16)
    with GradientTape() as tape:
        y = np.sum(x * Tensor(np.ones(2, np.float16)))
    assert tape.gradient(y, [x])[0].tolist() == [1, 1]


SHARED_MEMORY: dict[str, Callable[[Any, Any], Any]] = {
    "the memory of a watched tensor": lambda x, w: w * w,
    "an operand": lambda x, w: w * 2 * x,
    "the memory of a constant": lambda x, w: w * Tensor(x),
    "a matrix": lambda x, w: ops.reshape(w, (1, -1)) @ np.reshape(x, (-1, 1)),
}


@pytest.mark.parametrize("size", [3, 64, 65, 10_000])
@pytest.mark.parametrize("program", SHARED_MEMORY.values(), ids=SHARED_MEMORY)
def test_overwriting_memory_shared_with_a_plain_array_is_detected(program: Any, size: int) -> None:
    numbers = np.arange(1.0, size + 1)
    x, w = numbers, Tensor(numbers, watch=True)
    for persistent in (False, True):
        with GradientTape(persistent=persistent) as tape:
            y = np.sum(program(x, w))
        original = numbers.copy()
        numbers[...] = 5
        with pytest.raises(GradientError, match=r"was overwritten after .* had used it"):
            tape.gradient(y, [w])
        numbers[...] = original
        expected = tape.gradient(y, [w])[0].tolist()
        numbers[...] = 5  # the gradient has been computed
        assert (
            expected
            == (
                original
                if program in (SHARED_MEMORY["a matrix"], SHARED_MEMORY["the memory of a constant"])
                else 2 * original
            ).tolist()
        )
        numbers[...] = original
        del tape


def test_an_unreferenced_operand_is_not_kept_for_comparison() -> None:
    w = watched(np.ones(100_000))
    tracemalloc.start()
    try:
        with GradientTape() as tape:
            y = w * 1.0
            for _ in range(20):
                y = y + np.ones(100_000)  # its VJP does not need the operand
        assert tracemalloc.get_traced_memory()[0] < 5 * w.nbytes
    finally:
        tracemalloc.stop()
    assert tape.gradient(y, [w])[0].sum() == 100_000


MASK, INDEX = np.array([True, False, True]), np.array([0, 2])
OF_ARGUMENTS: dict[str, tuple[np.ndarray[Any, Any], Callable[[Any, Any], Any]]] = {
    "a mask as index": (MASK, lambda x, given: x[given]),
    "an index": (INDEX, lambda x, given: x[given]),
    "take": (INDEX, np.take),
    "the method take": (INDEX, lambda x, given: x.take(given)),
    "take_along_axis": (INDEX, lambda x, given: np.take_along_axis(x, given, 0)),
    "compress": (MASK, lambda x, given: np.compress(given, x)),
    "the method compress": (MASK, lambda x, given: x.compress(given)),
    "repeat": (np.array([2, 0, 1]), np.repeat),
    "where": (MASK, lambda x, given: np.where(given, x, 0)),
    "select": (MASK, lambda x, given: np.select([given], [x])),
    "sum of some": (MASK, lambda x, given: np.sum(x, where=given)),
    "mean of some": (MASK, lambda x, given: np.mean(x, where=given)),
    "var of some": (MASK, lambda x, given: np.var(x, where=given)),
    "max of some": (MASK, lambda x, given: np.max(x, where=given, initial=0.0)),
}


@pytest.mark.parametrize(("given", "function"), OF_ARGUMENTS.values(), ids=OF_ARGUMENTS)
def test_indices_conditions_and_counts_may_change_before_the_gradient(given: Any, function: Any) -> None:
    def gradient(argument: Any, *, changes: bool) -> Any:
        x = Tensor(np.array([1.0, 2.0, 4.0]), watch=True)
        with GradientTape() as tape:
            y = np.sum(function(x, argument) ** 2)
        if changes:
            argument[...] = np.roll(argument, 1)
        return tape.gradient(y, [x])[0].tolist()

    assert gradient(given.copy(), changes=True) == gradient(given.copy(), changes=False)
