"""Checks gradients against central differences, in float64 (Nocedal & Wright 2006, section 8.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.autograd.tape import GradientTape
from engine.autograd.tensor import Tensor
from engine.errors import GradientError

__all__ = ["gradcheck"]


def gradcheck(
    f: Callable[..., Any],
    *inputs: Any,
    step: float = 1e-6,
    relative_tolerance: float = 1e-5,
    absolute_tolerance: float = 1e-7,
    order: int = 1,
) -> None:
    """Compare the tape's gradients of ``f`` with central differences ``(f(x + h) - f(x - h)) / 2h``.

    An output with several elements is weighted with fixed random numbers, so that errors cannot cancel.

    Args:
        f: takes as many tensors as there are ``inputs`` and returns one tensor.
        inputs: arrays; converted to float64.
        step: h; multiplied by the absolute value of the element if that is above 1.
        order: 2 checks second derivatives (the derivatives of the tape's gradients), and so on.

    Raises:
        GradientError: a gradient differs; the message has the input, the element and both values.
    """
    if order > 1:
        tolerances = {"relative_tolerance": relative_tolerance, "absolute_tolerance": absolute_tolerance}
        gradcheck(gradient_of(f), *inputs, step=step, **tolerances, order=order - 1)
        return
    arrays = [np.array(x, np.float64) for x in inputs]
    tensors = [Tensor(array, watch=True) for array in arrays]
    with GradientTape() as tape:
        output = f(*tensors)
    weights = _weights(output.shape)
    gradients = tape.gradient(output, tensors, output_gradients=weights, unconnected="zero")
    for number, (array, gradient) in enumerate(zip(arrays, gradients, strict=True)):
        numeric = np.empty_like(array)
        for index in np.ndindex(array.shape):
            middle = float(array[index])
            h = step * max(1.0, abs(middle))
            sides = []
            for value in (middle + h, middle - h):
                array[index] = value  # the tensors share this memory
                sides.append(np.array(f(*tensors)))  # a copy: it may be a view of the array
            array[index] = middle
            numeric[index] = np.sum((sides[0] - sides[1]) * weights) / (2 * h)
        exact = np.asarray(gradient)
        excess = np.abs(exact - numeric) - absolute_tolerance - relative_tolerance * np.abs(numeric)
        if exact.size and not np.max(excess) <= 0:  # also when it is NaN
            worst = np.unravel_index(np.argmax(np.nan_to_num(excess, nan=np.inf)), array.shape)
            raise GradientError(
                f"gradcheck: input {number} of shape {array.shape} at {tuple(map(int, worst))}: "
                f"the tape says {exact[worst]:.10g}, central differences say {numeric[worst]:.10g}"
            )


def gradient_of(f: Callable[..., Any]) -> Callable[..., Any]:
    """The function that returns all gradients of ``f`` as one vector, with the output of ``f`` weighted as above."""

    def gradients(*tensors: Any) -> Any:
        with GradientTape() as tape:
            output = f(*tensors)
        results = tape.gradient(output, tensors, output_gradients=_weights(output.shape), unconnected="zero")
        return np.concatenate([np.ravel(gradient) for gradient in results])

    return gradients


def _weights(shape: tuple[int, ...]) -> Any:
    return np.random.Generator(np.random.Philox(0)).uniform(0.5, 1.5, shape)
