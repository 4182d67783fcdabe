"""The elements of a trace: calls, and locations in memory instead of arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.autograd.graph import Array
from engine.autograd.tensor import tree_map
from engine.errors import EngineError


class NotReplayableError(EngineError):
    """The computation cannot be expressed as calls on fixed memory; it can still run on the plain tape."""


class ShapeChangedError(EngineError):
    """A call returned another shape than in the trace, because the shape depends on the data."""


@dataclass(frozen=True, slots=True)
class Location:
    """The location of an array: its buffer, the offset, and the layout."""

    buffer: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Call:
    """``function(*args, **options)``, which writes into ``out``, one of the arguments or options.

    Arguments are locations for arrays that calls compute, and the arrays themselves for resident ones.

    Attributes:
        elementwise: each element of ``out`` depends only on the same element of the arguments, so that an argument
            that no later call reads may be overwritten.
        may_fail: the call may raise ShapeChangedError.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]
    out: Any
    elementwise: bool = False
    may_fail: bool = False


def owner(array: Array) -> Array:
    """The array whose memory ``array`` is a view of, or itself."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def read_only(array: Array) -> Array:
    """A view that cannot be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


def writeable(view: Array) -> Array:
    """The same view, writeable if its memory is and no two of its positions share an element."""
    repeated = view.size > 0 and any(s == 0 and n > 1 for s, n in zip(view.strides, view.shape, strict=True))
    if owner(view).flags.writeable and not repeated:
        view.flags.writeable = True
    return view


def untraced(value: Any) -> Any:
    """``value`` with plain arrays instead of traced ones, through nested tuples, lists and dicts."""
    return tree_map(value, np.ndarray, lambda array: np.ndarray.view(array, np.ndarray))


def instances(value: Any, kind: type) -> list[Any]:
    """The instances of ``kind`` in nested tuples, lists and dicts."""
    found: list[Any] = []
    tree_map(value, kind, found.append)
    return found
