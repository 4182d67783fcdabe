"""Dense layers and row sums: accuracy and memory layout."""

import numpy as np
import pytest

from engine import GradientTape, Tensor, ops
from engine.ops.linalg import sum_along_rows


@pytest.mark.parametrize("columns", [0, 1, 64, 97, 4096, 4099, 100_000])
def test_row_sums_are_accurate_for_any_length(columns: int) -> None:
    matrix = np.random.default_rng(0).standard_normal((3, columns)).astype(np.float32) + 1e4
    sums = sum_along_rows(matrix.astype(np.float32))
    assert sums.dtype == np.float32
    np.testing.assert_allclose(sums, matrix.astype(np.float64).sum(axis=1), rtol=2e-6)


def test_the_output_of_a_dense_layer_has_the_memory_order_of_its_input() -> None:
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((6, 5)), rng.standard_normal((5, 4)), rng.standard_normal(4)
    results = []
    for order in ("C", "F"):
        tensors = [Tensor(np.array(x, order=order), watch=True), Tensor(w, watch=True), Tensor(b, watch=True)]
        with GradientTape() as tape:
            y = ops.affine(*tensors)
            loss = ops.squared_error(y, 0.5)
        gradients = tape.gradient(loss, tensors)
        assert y.flags[f"{order}_CONTIGUOUS"]
        results.append([y, *gradients])
    for row_major, column_major in zip(*results, strict=True):
        np.testing.assert_allclose(row_major, column_major, rtol=1e-12)
