"""Dense layers and sums of rows: accuracy, and order in memory."""

import numpy as np
import pytest

from engine import GradientTape, Tensor, ops
from engine.ops.linalg import sum_along_rows


@pytest.mark.parametrize("columns", [0, 1, 64, 97, 4096, 4099, 100_000])
def test_rows_are_summed_whatever_their_length(columns: int) -> None:
    matrix = np.random.default_rng(0).standard_normal((3, columns)).astype(np.float32) + 1e4
    sums = sum_along_rows(matrix.astype(np.float32))
    assert sums.dtype == np.float32
    np.testing.assert_allclose(sums, matrix.astype(np.float64).sum(axis=1), rtol=2e-6)


def test_rows_that_lie_as_columns_pass_a_dense_layer_as_they_are() -> None:
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
    for by_rows, by_columns in zip(*results, strict=True):
        np.testing.assert_allclose(by_rows, by_columns, rtol=1e-12)
