import gc
import threading
import weakref

import numpy as np
import pytest

from engine import GradientError, GradientTape, ShapeError, Tensor, gradcheck, ops


def test_the_readme_example() -> None:
    x = Tensor([3.0], watch=True)
    with GradientTape() as tape:
        y = (x * 4.0) ** 2
    (dx,) = tape.gradient(y, [x])
    assert repr(dx) == "Tensor([96.])"


def test_tensor_used_twice_gets_both_gradients() -> None:
    x = Tensor([3.0], watch=True)
    with GradientTape() as tape:
        y = x * x + x
    assert tape.gradient(y, [x])[0].tolist() == [7]


def test_gradients_are_summed_over_broadcast_axes() -> None:
    x, b = Tensor(np.ones((4, 3)), watch=True), Tensor(np.ones((3,)), watch=True)
    with GradientTape() as tape:
        y = x * b
    dx, db = tape.gradient(y, [x, b])
    assert dx.shape == (4, 3)
    assert db.tolist() == [4, 4, 4]


def test_a_chain_of_twenty_thousand_operations_has_a_gradient() -> None:
    x = Tensor(1.0, watch=True, dtype=np.float64)
    with GradientTape() as tape:
        y = x
        for _ in range(20_000):
            y = y * 1.0001
    (dx,) = tape.gradient(y, [x])
    assert dx == pytest.approx(1.0001**20_000)
    del tape, y
    gc.collect()


def test_empty_and_scalar_tensors_have_gradients() -> None:
    gradcheck(lambda x, y: np.sum(x, axis=0) * y, np.ones((0, 3)), np.array(2.0))
    gradcheck(lambda x: x * x + ops.exp(x), np.array(0.5))


def test_output_gradients_weight_the_target() -> None:
    x = Tensor([1.0, 2.0], watch=True)
    with GradientTape(persistent=True) as tape:
        y = x**2
    weights = np.array([1.0, 10.0])
    assert tape.gradient(y, [x], output_gradients=weights)[0].tolist() == [2, 40]
    with pytest.raises(ShapeError, match=r"\(3,\) for a target \(2,\)"):
        tape.gradient(y, [x], output_gradients=np.ones(3))


def test_sources_can_be_intermediate_values_or_the_target_itself() -> None:
    x = Tensor([3.0], watch=True)
    with GradientTape() as tape:
        y = x * 2
        z = y * y
    assert [g.tolist() for g in tape.gradient(z, [y, x, z, y])] == [[12], [24], [1], [12]]


def test_an_unused_source_gets_zeros_on_request() -> None:
    x, unused = Tensor([3.0], watch=True), Tensor([[1.0, 1.0]], watch=True)
    with GradientTape() as tape:
        y = x * 2
    assert tape.gradient(y, [unused], unconnected="zero")[0].tolist() == [[0, 0]]


def test_gradients_share_no_memory() -> None:
    a, b = Tensor([1.0], watch=True), Tensor([1.0], watch=True)
    seed = np.ones(1, np.float32)
    with GradientTape() as tape:
        y = a + b
    da, db = tape.gradient(y, [a, b], output_gradients=seed)
    da += 5
    assert (db.tolist(), seed.tolist()) == ([1], [1])


def test_gradients_have_the_dtype_of_their_source() -> None:
    x = Tensor([3.0], watch=True)
    with GradientTape() as tape:
        y = x * np.array([2.0])
    assert y.dtype == np.float64
    assert tape.gradient(y, [x])[0].dtype == np.float32


def test_only_records_between_target_and_sources_are_visited(monkeypatch: pytest.MonkeyPatch) -> None:
    visited = []
    rules = ops.matmul.rules

    def spy(argument: int):
        def rule(*call):
            vjp = rules[argument](*call)
            return lambda g: (visited.append(argument), vjp(g))[1]

        return rule

    monkeypatch.setattr(ops.matmul, "rules", (spy(0), spy(1)))
    x, first, second = np.ones((1, 2)), *(Tensor(np.eye(2), watch=True) for _ in range(2))
    with GradientTape(persistent=True) as tape:
        y = (x @ first) @ second
    tape.gradient(y, [second])
    assert visited == [1]
    visited.clear()
    tape.gradient(y, [first])
    assert visited == [0, 1]


def test_a_tape_computes_one_gradient_unless_it_is_persistent() -> None:
    x = Tensor([3.0], watch=True)
    with GradientTape() as tape:
        y = x * 2
    tape.gradient(y, [x])
    with pytest.raises(GradientError, match="persistent"):
        tape.gradient(y, [x])
    with GradientTape(persistent=True) as tape:
        y = x * 2
        z = y * y
    assert [tape.gradient(t, [x])[0].tolist() for t in (z, y, z)] == [[24], [2], [24]]


def test_the_gradient_frees_the_records_and_their_arrays() -> None:
    x = Tensor(np.ones(3), watch=True)
    with GradientTape() as tape:
        saved = np.exp(x)
        y = saved * 2
    saved_reference = weakref.ref(saved)
    del saved
    tape.gradient(y, [x])
    assert saved_reference() is None
    assert tape.records == []


def test_a_value_that_no_vjp_needs_is_freed_during_the_forward_pass() -> None:
    x = Tensor(np.ones(3), watch=True)
    with GradientTape() as tape:
        z = x + 1
        memory_reference = weakref.ref(z.base)
        y = ops.sigmoid(z)
        del z
        assert memory_reference() is None
    assert tape.gradient(y, [x])


def test_unknown_targets_and_sources_raise_errors() -> None:
    x, unwatched = Tensor([3.0], watch=True), Tensor([3.0])
    with GradientTape() as tape:
        y = x * 2
    with pytest.raises(GradientError, match="source 1 is neither watched"):
        tape.gradient(y, [x, unwatched])
    with pytest.raises(GradientError, match="the target"):
        tape.gradient(unwatched, [x])
    with pytest.raises(GradientError, match="list of tensors"):
        tape.gradient(y, x)
    with GradientTape() as later, pytest.raises(GradientError, match="the target"):
        later.gradient(y, [x])


def test_values_of_an_earlier_tape_are_constants() -> None:
    x = Tensor([3.0], watch=True)
    with GradientTape() as tape:
        y = x * 2
    with GradientTape() as tape:
        z = y * x
    assert tape.gradient(z, [x])[0].tolist() == [6]


def test_a_gradient_inside_the_block_stops_recording() -> None:
    x = Tensor([3.0], watch=True)
    with GradientTape() as tape:
        y = x * 2
        assert tape.gradient(y, [x])[0].tolist() == [2]
        x * 2
    assert tape.records == []
    with GradientTape():
        pass


def test_threads_do_not_see_each_others_tapes() -> None:
    x = Tensor([3.0], watch=True)
    with GradientTape() as tape:
        thread = threading.Thread(target=lambda: x * 2)
        thread.start()
        thread.join()
        y = x * 3
    assert len(tape.records) == 1
    assert tape.gradient(y, [x])[0].tolist() == [3]
