"""The floor: only the matrix products that a step requires."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from benchmarks.engine.digits import Sizes

Array = np.ndarray[Any, Any]
Shapes = tuple[tuple[int, int], tuple[int, int]]


def forward(sizes: Sizes, batch: int) -> list[Shapes]:
    """``x @ w`` of each layer, as the shapes of both factors."""
    return [((batch, inputs), (inputs, units)) for inputs, units, _ in sizes]


def back_to_parameters(sizes: Sizes, batch: int) -> list[Shapes]:
    """``x.T @ g`` of each layer."""
    return [((inputs, batch), (batch, units)) for inputs, units, _ in sizes]


def back_to_input(sizes: Sizes, batch: int) -> list[Shapes]:
    """``g @ w.T`` of each layer."""
    return [((batch, units), (units, inputs)) for inputs, units, _ in sizes]


def classifier_step(sizes: Sizes, batch: int) -> list[Shapes]:
    """The products of a classifier's step, without the gradient of its images."""
    return forward(sizes, batch) + back_to_input(sizes[1:], batch) + back_to_parameters(sizes, batch)


def in_columns(products: list[Shapes]) -> list[Shapes]:
    """The same products for column-major operands: the factors are transposed and swapped."""
    return [(right[::-1], left[::-1]) for left, right in products]


def gan_step(generator: Sizes, discriminator: Sizes, batch: int, updates_discriminator: bool) -> list[Shapes]:
    """One pass over the fakes serves both losses; the discriminator's own gradients only where it is updated."""
    products = in_columns(forward(generator, batch) + forward(discriminator, batch))
    products += in_columns(back_to_input(discriminator, batch) + back_to_input(generator[1:], batch))
    products += back_to_parameters(generator, batch)
    if updates_discriminator:
        products += forward(discriminator, batch) + back_to_input(discriminator[1:], batch)
        products += in_columns(back_to_input(discriminator[1:], batch)) + 2 * back_to_parameters(discriminator, batch)
    return products


def operands(products: list[Shapes]) -> list[tuple[Array, Array, Array]]:
    """Factors and memory for each product, one array for each shape. Transposed factors are views, as in a step."""
    rng = np.random.default_rng(0)
    arrays: dict[tuple[int, int], Array] = {}

    def array(shape: tuple[int, int]) -> Array:
        if shape[::-1] in arrays:
            return arrays[shape[::-1]].T
        return arrays.setdefault(shape, rng.standard_normal(shape).astype(np.float32))

    # The product of x.T and g has the shape of a weight, that of g and w.T the shape of an x. Results lie row by row.
    for left, right in products:
        array((left[0], right[1]))
    return [(array(left), array(right), np.empty((left[0], right[1]), np.float32)) for left, right in products]


def multiply(calls: list[tuple[Array, Array, Array]]) -> None:
    """Compute products of :func:`operands`."""
    for left, right, out in calls:
        np.matmul(left, right, out=out)


def runner(products: list[Shapes]) -> functools.partial[None]:
    """A function that computes all products, into the same arrays each time."""
    return functools.partial(multiply, operands(products))
