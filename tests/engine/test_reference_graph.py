"""Second derivatives compared with PyTorch in float64: Hessian-vector products."""

from typing import Any

import numpy as np
import pytest

from engine import GradientTape, Tensor, generator_for, ops

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.nightly
F = torch.nn.functional


def draw(*shape: int, purpose: str = "x") -> np.ndarray:
    return generator_for(7, purpose).standard_normal(shape)


def channels_last(f: Any) -> Any:
    return lambda x, *rest: f(x.permute(0, 3, 1, 2), *rest).permute(0, 2, 3, 1)


def batch_norm(x: Any, scale: Any, shift: Any) -> Any:
    return F.batch_norm(x, None, None, scale, shift, training=True, eps=0.01)


IMAGES, KERNEL = draw(2, 6, 6, 2), draw(3, 3, 2, 3, purpose="w")
CASES: dict[str, tuple[Any, Any, list[np.ndarray]]] = {
    "affine, tanh": (
        lambda x, w, b: np.tanh(ops.affine(x, w, b)),
        lambda x, w, b: torch.tanh(x @ w + b),
        [draw(4, 3), draw(3, 2, purpose="w"), draw(2, purpose="b")],
    ),
    "softmax": (ops.softmax, lambda x: torch.softmax(x, -1), [draw(3, 4)]),
    "log_softmax": (ops.log_softmax, lambda x: torch.log_softmax(x, -1), [draw(3, 4)]),
    "sigmoid": (ops.sigmoid, torch.sigmoid, [draw(5)]),
    "leaky_relu squared": (lambda x: ops.leaky_relu(x) ** 2, lambda x: F.leaky_relu(x, 0.2) ** 2, [draw(5)]),
    "sigmoid cross-entropy": (
        lambda x: ops.sigmoid_cross_entropy(x, 0.9),
        lambda x: F.binary_cross_entropy_with_logits(x, torch.full_like(x, 0.9), reduction="sum"),
        [draw(5)],
    ),
    "softmax cross-entropy": (
        lambda x: ops.softmax_cross_entropy(x, np.array([0, 2, 1]), label_smoothing=0.1),
        lambda x: F.cross_entropy(x, torch.tensor([0, 2, 1]), reduction="sum", label_smoothing=0.1),
        [draw(3, 4)],
    ),
    "conv2d": (
        lambda x, w, b: ops.conv2d(x, w, b, stride=2, padding="valid"),
        channels_last(lambda x, w, b: F.conv2d(x, w.permute(3, 2, 0, 1), b, stride=2)),
        [IMAGES, KERNEL, draw(3, purpose="b")],
    ),
    "conv2d_transpose": (
        lambda x, w, b: ops.conv2d_transpose(x, w, b, stride=2, padding="valid"),
        channels_last(lambda x, w, b: F.conv_transpose2d(x, w.permute(2, 3, 0, 1), b, stride=2)),
        [IMAGES, KERNEL, draw(3, purpose="b")],
    ),
    "max_pool2d squared": (
        lambda x: ops.max_pool2d(x) ** 2,
        channels_last(lambda x: F.max_pool2d(x, 2) ** 2),
        [IMAGES],
    ),
    "batch_norm": (
        lambda x, s, t: ops.batch_norm(x, s, t, epsilon=0.01)[0],
        channels_last(batch_norm),
        [IMAGES, draw(2, purpose="s"), draw(2, purpose="t")],
    ),
    "norm": (lambda x: np.linalg.norm(x, axis=1), lambda x: torch.linalg.norm(x, dim=1), [draw(3, 4)]),
    "std": (lambda x: np.std(x, axis=0, ddof=1), lambda x: torch.std(x, dim=0), [draw(3, 4)]),
    "prod": (lambda x: np.prod(x, axis=1), lambda x: torch.prod(x, 1), [draw(3, 4)]),
    "einsum": (
        lambda a, b: np.einsum("ij,kj->ik", a, b),
        lambda a, b: torch.einsum("ij,kj->ik", a, b),
        [draw(2, 3), draw(4, 3, purpose="w")],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_hessian_vector_products_match_pytorch(name: str) -> None:
    ours, theirs, arrays = CASES[name]
    directions = [generator_for(1, f"v{i}").standard_normal(array.shape) for i, array in enumerate(arrays)]
    tensors = [Tensor(array.copy(), watch=True) for array in arrays]
    with GradientTape() as outer:
        with GradientTape() as inner:
            y = np.sum(np.sin(ours(*tensors)))
        first = inner.gradient(y, tensors)
        directional_derivative = np.sum(np.stack([np.sum(g * v) for g, v in zip(first, directions, strict=True)]))
    second = outer.gradient(directional_derivative, tensors, unconnected="zero")

    twins = [torch.tensor(array, requires_grad=True) for array in arrays]
    expected = torch.autograd.grad(torch.sin(theirs(*twins)).sum(), twins, create_graph=True)
    expected_derivative = sum((g * torch.from_numpy(v)).sum() for g, v in zip(expected, directions, strict=True))
    expected_second = torch.autograd.grad(expected_derivative, twins, allow_unused=True)
    for got, want in zip((*first, *second), (*expected, *expected_second), strict=True):
        np.testing.assert_allclose(got, 0 if want is None else want.detach(), rtol=1e-9, atol=1e-10)
