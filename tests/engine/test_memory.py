"""Arrays aligned to cache lines."""

import numpy as np
import pytest

from engine import Adam, Dense, Tensor, generator_for, memory


@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (5, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_arrays_start_at_a_cache_line(shape: tuple[int, ...], dtype: type) -> None:
    source = np.full(shape[::-1], 3, dtype).T
    for array in (memory.empty(shape, dtype), memory.zeros(shape, dtype), memory.copy(source)):
        assert memory.address(array) % memory.LINE == 0
        assert (array.shape, array.dtype, array.flags.c_contiguous) == (shape, dtype, True)
        assert array.flags.writeable
    assert (memory.zeros(shape, dtype) == 0).all()
    assert (memory.copy(source) == source).all()


def test_weights_and_optimizer_state_start_at_a_cache_line() -> None:
    for size in (3, 5, 11):
        weight = Dense(size, size, rng=generator_for(0, "init")).weight
        adam = Adam()
        adam.apply([weight], [np.ones((size, size), np.float32)], 0.1)
        assert [memory.address(array) % memory.LINE for array in (weight, adam._sums[0][0], adam._sums[1][0])] == [
            0
        ] * 3
        resumed = Adam()
        resumed.load_state_dict(adam.state_dict(), [Tensor(weight)])
        assert memory.address(resumed._sums[0][0]) % memory.LINE == 0
