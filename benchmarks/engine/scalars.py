"""A graph of scalars with one Python object per number, as in micrograd (Karpathy 2020).

It computes the same gradients as an array library, but takes hundreds of times as long.
"""

from __future__ import annotations

import math
from collections.abc import Callable


class Value:
    """A number with references to the values from which it was computed."""

    __slots__ = ("backward", "data", "gradient", "parents")

    def __init__(self, data: float, parents: tuple[Value, ...] = ()) -> None:
        self.data = data
        self.gradient = 0.0
        self.parents = parents
        self.backward: Callable[[], None] | None = None

    def __add__(self, other: Value) -> Value:
        out = Value(self.data + other.data, (self, other))

        def backward() -> None:
            self.gradient += out.gradient
            other.gradient += out.gradient

        out.backward = backward
        return out

    def __mul__(self, other: Value) -> Value:
        out = Value(self.data * other.data, (self, other))

        def backward() -> None:
            self.gradient += other.data * out.gradient
            other.gradient += self.data * out.gradient

        out.backward = backward
        return out

    def sigmoid(self) -> Value:
        out = Value(1 / (1 + math.exp(-self.data)), (self,))

        def backward() -> None:
            self.gradient += out.data * (1 - out.data) * out.gradient

        out.backward = backward
        return out


def backpropagate(target: Value) -> None:
    """Compute the gradients of ``target`` with respect to all values from which it was computed."""
    order: list[Value] = []
    visited_ids = {id(target)}
    stack = [(target, False)]
    while stack:
        value, is_expanded = stack.pop()
        if is_expanded:
            order.append(value)
            continue
        stack.append((value, True))
        for parent in value.parents:
            if id(parent) not in visited_ids:
                visited_ids.add(id(parent))
                stack.append((parent, False))
    target.gradient = 1.0
    for value in reversed(order):
        if value.backward is not None:
            value.backward()


class Network:
    """Dense layers of scalars that end with sigmoids, squared error, SGD."""

    def __init__(self, parameters: list[list[list[float]]]) -> None:
        # For each layer and unit: its weights, then its bias.
        self.layers = [[[Value(number) for number in unit] for unit in layer] for layer in parameters]

    def step(self, images: list[list[float]], targets: list[list[float]], rate: float) -> float:
        loss = Value(0.0)
        minus = Value(-1.0)
        for image, target in zip(images, targets, strict=True):
            values = [Value(number) for number in image]
            for layer in self.layers:
                sums = []
                for *weights, bias in layer:
                    total = bias
                    for weight, value in zip(weights, values, strict=True):
                        total = total + weight * value
                    sums.append(total.sigmoid())
                values = sums
            for output, expected in zip(values, target, strict=True):
                difference = output + minus * Value(expected)
                loss = loss + difference * difference
        backpropagate(loss)
        for layer in self.layers:
            for unit in layer:
                for value in unit:
                    value.data -= rate * value.gradient
                    value.gradient = 0.0
        return loss.data
