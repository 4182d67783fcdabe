"""NumPy functions that only move, repeat or drop elements. One VJP works for all of them.

The backward pass applies such a function to the positions 1, 2, 3, ... of the elements. The result shows the origin of
each output element; 0 means padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from engine.autograd.graph import Array
from engine.autograd.primitive import Primitive
from engine.autograd.tensor import snapshot, untracked_tree
from engine.ops.shape import concatenate, ravel, reshape

Move = Callable[[Array], Array]


def _move_home(g: Array, shape: tuple[int, ...], move: Move) -> Array:
    size = math.prod(shape)
    origins = move(np.arange(1, size + 1).reshape(shape))
    gradient = np.zeros(size + 1, g.dtype)
    np.add.at(gradient, origins, g)  # unlike =, adds up the gradients of a repeated element
    return gradient[1:].reshape(shape)


_moved_home = Primitive("move_home", _move_home, lambda y, g, shape, move: lambda h: move(h))
_moved = Primitive(
    "move",
    lambda x, move: move(x),
    lambda y, x, move: partial(_move_home, shape=x.shape, move=move),
    graph=[lambda y, x, move: lambda g: _moved_home(g, shape=x.shape, move=move)],
)


def moving(function: Callable[..., Any]) -> Callable[..., Any]:
    """The differentiable form of a NumPy function that takes an array as first argument and returns an array."""

    def on_tape(x: Any, *args: Any, **options: Any) -> Any:
        args, options = snapshot(args), snapshot(options)
        return _moved(x, move=lambda array: function(array, *args, **options))

    return on_tape


def splitting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Like :func:`moving`, for functions that return a list or tuple of arrays."""

    def on_tape(x: Any, *args: Any, **options: Any) -> Any:
        args, options = snapshot(args), snapshot(options)
        outputs = function(np.empty(x.shape, np.bool_), *args, **options)
        moves = (lambda array, i=i: function(array, *args, **options)[i] for i in range(len(outputs)))
        return type(outputs)(_moved(x, move=move) for move in moves)

    return on_tape


def take(x: Any, indices: Any, axis: int | None = None, *, mode: str = "raise") -> Any:
    """As ``np.take``, without ``out``."""
    return moving(np.take)(x, indices, axis, mode=mode)


def sort(x: Any, axis: int | None = -1) -> Any:
    """As ``np.sort``; the gradient is permuted back."""
    if axis is None:
        x, axis = ravel(x), -1
    return moving(np.take_along_axis)(x, np.argsort(untracked_tree(x), axis, kind="stable"), axis)


def at_least(function: Callable[..., Any]) -> Callable[..., Any]:
    """The differentiable form of ``np.atleast_1d`` and its like, with one argument."""
    return lambda x: reshape(x, shape=function(np.empty(np.shape(x), np.bool_)).shape)


def hstack(arrays: Sequence[Any]) -> Any:
    """As ``np.hstack``."""
    rows = [at_least(np.atleast_1d)(array) for array in arrays]
    return concatenate(rows, axis=0 if rows[0].ndim == 1 else 1)


def vstack(arrays: Sequence[Any]) -> Any:
    """As ``np.vstack``."""
    return concatenate([at_least(np.atleast_2d)(array) for array in arrays])
