import copy
from typing import Any

import numpy as np
import pytest

from engine import GradientError, GradientTape, Tensor, ops


def gradient_of(f: Any, x: Any) -> Any:
    tensor = Tensor(np.asarray(x, np.float64), watch=True)
    with GradientTape() as tape:
        y = f(tensor)
    return tape.gradient(y, [tensor])[0].tolist()


def test_python_floats_become_float32_and_arrays_keep_their_dtype() -> None:
    assert Tensor([1.0, 2.0]).dtype == np.float32
    assert Tensor(1.5).dtype == np.float32
    assert Tensor(np.float64(1.5)).dtype == np.float64
    assert Tensor(np.ones(2)).dtype == np.float64
    assert Tensor(np.ones(2, np.float16)).dtype == np.float16
    assert Tensor([1, 2]).dtype.kind == "i"
    assert Tensor([1.0], dtype=np.float64).dtype == np.float64


def test_an_array_shares_its_memory_with_its_tensor() -> None:
    array = np.zeros(2)
    Tensor(array)[0] = 1
    assert array.tolist() == [1, 0]


def test_integers_cannot_be_watched() -> None:
    with pytest.raises(GradientError, match="int64"):
        Tensor(np.array([1]), watch=True)


def test_outside_a_tape_a_tensor_behaves_like_an_array() -> None:
    x = Tensor([[1.0, 2.0], [3.0, 4.0]], watch=True)
    assert isinstance(x + 1, Tensor)
    assert isinstance(x, np.ndarray)
    assert not (x + 1).watched
    assert (x @ x).tolist() == [[7, 10], [15, 22]]
    assert np.linalg.det(x) == pytest.approx(-2)
    assert np.sort(x, axis=None).tolist() == [1, 2, 3, 4]
    assert x.mean() == 2.5
    assert x.std(axis=0).tolist() == [1, 1]
    assert x.T[0].tolist() == [1, 3]
    assert (x > 2).sum() == 2
    assert divmod(x, 2)[0].tolist() == [[0, 1], [1, 2]]
    x += 1
    x[0] = 0
    x.fill(5)
    np.add(x, 1, out=x)
    np.copyto(x, 2, where=x > 1)
    np.exp(x, out=x, where=x > 5)
    assert x.tolist() == [[2, 2], [2, 2]]
    assert x.watched


def test_the_repr_shows_the_dtype_only_if_it_is_not_float32() -> None:
    assert repr(Tensor([96.0])) == "Tensor([96.])"
    assert repr(Tensor(np.array([96.0]))) == "Tensor([96.], dtype=float64)"
    assert f"{Tensor(0.5):.2f} {Tensor([1.0])}" == "0.50 [1.]"


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda x: x + x, [2, 2]),
        (lambda x: 3 - x, [-1, -1]),
        (lambda x: 1 / x, [-1, -0.25]),
        (lambda x: x**2, [2, 4]),
        (lambda x: x**-1, [-1, -0.25]),
        (lambda x: 2**x, [2 * np.log(2), 4 * np.log(2)]),
        (lambda x: +x - -x, [2, 2]),
        (lambda x: abs(x), [1, 1]),
        (lambda x: np.reciprocal(x), [-1, -0.25]),
        (lambda x: x @ x, [2, 4]),
        (lambda x: np.dot(x, x) + x.dot(x), [4, 8]),
        (lambda x: np.dot(2.0, x), [2, 2]),
        (lambda x: Tensor(np.array([3.0, 4.0])).dot(b=x), [3, 4]),
        (lambda x: sum(a * a for a in x) + (lambda a, b: a * b)(*x), [4, 5]),
        (lambda x: np.moveaxis(x.reshape(1, 2, 1), (0, 2), (-1, 0)).reshape(2) * x, [2, 4]),
        (lambda x: np.where(x > 1, x, 5 * x), [5, 1]),
        (lambda x: np.clip(x, 0, 1.5) + x.clip(max=5), [2, 1]),
        (lambda x: np.add.reduce(x) + np.maximum.reduce(x), [1, 2]),
        (lambda x: x.sum() + x.mean() + x.max() + x.min(), [2.5, 2.5]),
        (lambda x: np.sum(x) + np.mean(x) + np.max(x) + np.amin(x), [2.5, 2.5]),
        (lambda x: np.var(x) + x.var(ddof=1), [-1.5, 1.5]),
        (lambda x: np.std(x) + x.std(), [-1, 1]),
        (lambda x: x.reshape(2, 1).T * x.reshape((1, 2)), [2, 4]),
        (lambda x: x.reshape(1, -1).transpose(1, 0).mT.squeeze() ** 2, [2, 4]),
        (lambda x: np.expand_dims(x, 0).transpose().flatten() + np.ravel(x), [2, 2]),
        (lambda x: np.moveaxis(np.stack([x, x]), 0, 1).swapaxes(0, 1)[0], [1, 1]),
        (lambda x: np.concatenate([x, x * x]), [3, 5]),
        (lambda x: np.broadcast_to(x, (3, 2)), [3, 3]),
        (lambda x: x[0] * x[-1] + x[..., 1], [2, 2]),
        (lambda x: x[x > 1] * x[np.array([True, False])], [2, 1]),
        (lambda x: x.astype(np.float32) + x.copy() + np.copy(x) + copy.copy(x), [4, 4]),
        (lambda x: x * np.argmax(x) + x * (x > 1).sum() + np.zeros_like(x), [2, 2]),
        (lambda x: x * x.argmax() * np.shape(x)[0] * len(x), [4, 4]),
        (lambda x: x * np.asarray(x), [1, 2]),
    ],
)
def test_common_expressions_have_correct_gradients(f: Any, expected: list[float]) -> None:
    assert gradient_of(f, [1.0, 2.0]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("f", "name"),
    [
        (lambda x: np.multiply.accumulate(x), "np.multiply.accumulate"),
        (lambda x: np.sum(x, where=x > 1, out=np.zeros(())), "np.sum"),
        (lambda x: np.add(x, 1, where=x > 1), "np.add"),
        (lambda x: np.exp(x, dtype=np.float64), "np.exp"),
        (lambda x: x.astype(int), "np.astype"),
        (lambda x: np.median(x), "np.median"),
        (lambda x: np.cumprod(x), "np.cumprod"),
        (lambda x: x.cumprod(), "ndarray.cumprod"),
        (lambda x: np.logical_and.reduce(x) + np.subtract.reduce(x), "np.subtract.reduce"),
        (lambda x: np.einsum("ii", np.stack([x, x])), "np.einsum"),
        (lambda x: np.einsum("...i,i", x, x), "np.einsum"),
        (lambda x: np.pad(x, 1, mode="mean"), "np.pad"),
        (lambda x: np.linalg.norm(x, 0), "np.linalg.norm"),
        (lambda x: np.linalg.pinv(np.stack([x, x])), "np.linalg.pinv"),
        (lambda x: np.sum(x, dtype=int), "cast"),
        (lambda x: x // 1, "np.floor_divide"),
        (lambda x: np.where(x), "np.where"),
        (lambda x: np.dot(x, np.ones((2, 2, 2))), "np.dot"),
        (lambda x: np.add(x, 1, out=np.zeros(2)), "np.add"),
        (lambda x: x * [x[0], 1.0], "multiply"),
        (lambda x: x.view(), "ndarray.view"),
        (lambda x: x.flat[0], "ndarray.flat"),
        (lambda x: Tensor(np.ones(2)).dot(b=x.view(np.ndarray)) + x * 1j, "multiply"),
        (lambda x: np.sum(x, 0, np.float32), "np.sum"),
        (lambda x: x.max(0, np.zeros(())), "ndarray.max"),
        (lambda x: np.take(x, [0], 0, np.zeros(1)), "np.take"),
        (lambda x: x.take([0], out=np.zeros(1)), "ndarray.take"),
        (lambda x: x.var(0, np.float64), "ndarray.var"),
        (lambda x: ops.cast(x, dtype=int), "cast"),
    ],
)
def test_functions_without_a_gradient_raise_an_error_that_names_them(f: Any, name: str) -> None:
    x = Tensor([1.0, 2.0], watch=True)
    with GradientTape(), pytest.raises(GradientError) as caught:
        f(x)
    assert caught.value.operation == name
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "write",
    [
        lambda y: y.__iadd__(1),
        lambda y: y.__setitem__(0, 1),
        lambda y: y.fill(0),
        lambda y: y.sort(),
        lambda y: np.exp(y, out=y),
        lambda y: np.clip(y, 0, 1, out=y),
        lambda y: np.copyto(y, 0),
        lambda y: np.fill_diagonal(y, 0),
        lambda y: np.add.at(y, 0, 1),
        lambda y: np.take(np.ones((3, 2)), [0, 1], 0, y),
        lambda y: np.ones((2, 2)).cumsum(axis=0, out=y),
        lambda y: y.byteswap(inplace=True),
        lambda y: y[0].__iadd__(1),
        lambda y: y[:1].T.fill(0),
        lambda y: y.reshape(-1).__setitem__(0, 5),
        lambda y: setattr(y, "flat", 5),
        lambda y: setattr(y, "real", 5),
    ],
)
def test_writing_to_a_recorded_tensor_is_an_error_until_the_gradient_is_computed(write: Any) -> None:
    x = Tensor(np.eye(2), watch=True)
    with GradientTape() as tape:
        y = x * 2
        for tensor in (x, y):
            with pytest.raises((GradientError, ValueError), match=r"in-place write|read-only|when called like this"):
                write(tensor)
    for tensor in (x, y):
        with pytest.raises((GradientError, ValueError), match=r"in-place write|read-only|when called like this"):
            write(tensor)
    tape.gradient(y, [x])
    write(x)
    write(y)


def test_an_iterator_over_a_recorded_tensor_cannot_write() -> None:
    x = Tensor([1.0, 2.0], watch=True)
    with GradientTape() as tape:
        y = np.exp(x)
        z = y * y
    with pytest.raises(ValueError, match="read-only"):
        y.flat[0] = 5
    tape.gradient(z, [x])
    y.flat[0] = 5
    y.flat = [1, 2]
    assert list(y.flat) == [1, 2]


@pytest.mark.parametrize("write", [lambda a, v: a.__iadd__(1), lambda a, v: v.fill(0), lambda a, v: a[:1].fill(0)])
def test_a_constant_cannot_be_written_to_while_a_tape_needs_it(write: Any) -> None:
    x, a = Tensor([[2.0, 3.0]], watch=True), Tensor([[5.0, 5.0], [1.0, 1.0]])
    view = a[0]
    with GradientTape() as tape:
        y = x * view
    with pytest.raises(GradientError, match="in-place write"):
        write(a, view)
    assert tape.gradient(y, [x])[0].tolist() == [[5, 5]]
    write(a, view)


def test_a_tensor_on_two_tapes_is_writable_after_both_gradients_are_computed() -> None:
    x = Tensor([2.0], watch=True)
    with GradientTape() as first:
        y = x * x
    with GradientTape() as second:
        z = x * 3
    second.gradient(z, [x])
    with pytest.raises(GradientError, match="in-place write"):
        x += 1
    assert first.gradient(y, [x])[0].tolist() == [4]
    x += 1
    assert x.tolist() == [3]


@pytest.mark.parametrize(
    "write",
    [
        lambda target, x: target.__setitem__(0, x[0]),
        lambda target, x: target.fill(x[0]),
        lambda target, x: target.put([0], x[0]),
        lambda target, x: setattr(target, "flat", x),
        lambda target, x: setattr(target, "real", x),
        lambda target, x: np.copyto(target, x),
        lambda target, x: np.copyto(np.asarray(target), x),
        lambda target, x: np.put(target, [0], x[0]),
        lambda target, x: np.put_along_axis(target, np.array([0]), x[:1], 0),
    ],
)
def test_tracked_values_cannot_be_written_into_an_untracked_array(write: Any) -> None:
    x, target = Tensor([1.0, 2.0], watch=True), Tensor([0.0, 0.0])
    with GradientTape(), pytest.raises(GradientError, match="written into an array"):
        write(target, x)
    assert target.tolist() == [0, 0]
    write(target, x)
    assert target[0] == 1


def test_deep_copies_are_watched_like_their_originals() -> None:
    x = Tensor([1.0, 2.0], watch=True)
    twin = copy.deepcopy({"weight": x, "constant": Tensor([1.0])})
    assert twin["weight"].watched
    assert not twin["constant"].watched
    twin["weight"] += 1
    assert x.tolist() == [1, 2]
    with GradientTape():
        y = x * 2
        with pytest.raises(GradientError, match="deepcopy"):
            copy.deepcopy(y)


def test_flatten_returns_a_copy_on_a_tape_too() -> None:
    x = Tensor([[1.0, 2.0]], watch=True)
    with GradientTape():
        y = x.flatten()
    y += 1
    assert x.tolist() == [[1, 2]]


def test_float_power_computes_in_float64_as_in_numpy() -> None:
    x = Tensor([2.0, 3.0], watch=True)
    with GradientTape() as tape:
        y = np.float_power(x, 2) + np.float_power(2, x)
    assert y.dtype == np.float64
    gradient = tape.gradient(y, [x])[0]
    assert gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, [4 + 4 * np.log(2), 6 + 8 * np.log(2)], rtol=1e-6)


def test_reading_a_recorded_tensor_is_not_a_write() -> None:
    x = Tensor([1.0, 2.0], watch=True)
    with GradientTape() as tape:
        y = np.exp(x)
        z = y * y
    assert np.einsum("i,i", y, y) == pytest.approx(np.dot(y, y))
    assert np.concatenate([y, y]).shape == np.hstack([y, y]).shape == (4,)
    assert np.take(y, [0]) == y[0]
    assert tape.gradient(z, [x])


def test_an_abandoned_tape_does_not_prevent_writes() -> None:
    x = Tensor([1.0], watch=True)
    with GradientTape():
        x * 2
    x += 1
    assert x.tolist() == [2]


def test_unwatched_tensors_are_not_recorded() -> None:
    x = Tensor([1.0])
    with GradientTape() as tape:
        y = np.exp(x) + np.sort(x)
        y += 1
        y[0] = 2
    assert not tape.records


def test_a_copy_has_the_order_that_numpy_gives_it_on_a_tape_too() -> None:
    x = Tensor(np.asfortranarray(np.ones((3, 4))), watch=True)
    copies = [lambda x: x.copy(), lambda x: x.copy("K"), np.copy, lambda x: np.copy(x, order="C")]
    plain = [make_copy(np.asarray(x)).strides for make_copy in copies]
    with GradientTape() as tape:
        recorded = [make_copy(x) for make_copy in copies]
        total = np.sum(np.stack(recorded))
    assert [copied.strides for copied in recorded] == plain
    np.testing.assert_array_equal(tape.gradient(total, [x])[0], np.full((3, 4), 4))
