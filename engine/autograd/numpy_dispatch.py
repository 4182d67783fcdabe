"""The tables that map NumPy functions to differentiable ones. :mod:`engine.ops` fills them; tensors use them.

On a tape, a function that is in none of the tables raises an error, because NumPy would return a value without a
gradient.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from engine.errors import GradientError

UFUNCS: dict[np.ufunc, Callable[..., Any]] = {}
"""Ufunc -> primitive, for ``np.add(x, y)`` and for the operators."""

REDUCTIONS: dict[np.ufunc, Callable[..., Any]] = {}
"""Ufunc -> primitive, for its ``reduce``: ``np.add.reduce`` is a sum."""

FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {}
"""NumPy function -> primitive, or a function made of primitives."""

METHODS: dict[str, Callable[..., Any]] = {}
"""Name of an ndarray method -> primitive, or a function made of primitives."""

NO_GRADIENT: set[Callable[..., Any]] = set()
"""Functions and ufuncs whose result is constant almost everywhere: allowed on a tape, never recorded."""

CONVERSIONS = (
    *("__bool__", "__complex__", "__contains__", "__float__", "__index__", "__int__"),
    *("__format__", "__repr__", "__str__"),
)
"""Special methods that convert an array to a Python value, which leaves the trace of a replay."""

WRITERS: dict[Callable[..., Any], str] = {
    np.copyto: "dst",
    np.fill_diagonal: "a",
    np.place: "arr",
    np.put: "a",
    np.put_along_axis: "arr",
    np.putmask: "a",
}
"""NumPy functions that write into their first argument, and the name of that argument."""


def write_targets(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments of a call that a NumPy function, or a method of ndarray, writes into."""
    # Only writers have their target as first argument; avoid the slow signature for all others.
    positions = _positions(function) if len(args) > 1 else {}

    def argument(name: str, default: Any = None) -> Any:
        position = positions.get(name, len(args))
        return args[position] if position < len(args) else kwargs.get(name, default)

    targets = [argument("out")]
    if function in WRITERS:
        targets.append(args[0] if args else kwargs.get(WRITERS[function]))
    if argument("overwrite_input"):
        targets.append(args[0] if args else kwargs.get("a"))
    if function is np.nan_to_num and not argument("copy", True):
        targets.append(args[0] if args else kwargs.get("x"))
    return targets


@functools.cache
def _positions(function: Callable[..., Any]) -> dict[str, int]:
    """The positions of a function's arguments by name."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # a C function, which has no signature before NumPy 2.4
        position = _OUT_POSITIONS.get(function.__name__)
        return {} if position is None else {"out": position}
    return {parameter.name: i for i, parameter in enumerate(parameters) if parameter.kind is not parameter.KEYWORD_ONLY}


_OUT_POSITIONS = {
    **dict.fromkeys(("all", "any", "argmax", "argmin", "choose", "concatenate", "dot", "max", "min", "round"), 2),
    **dict.fromkeys(("clip", "compress", "cumprod", "cumsum", "mean", "prod", "std", "sum", "take", "var"), 3),
    "trace": 5,
}


def no_gradient(name: str) -> GradientError:
    """The error for a function that has no gradient."""
    return GradientError(
        f"{name} has no gradient; call it on np.asarray(tensor) if none should flow through it", operation=name
    )
