"""What must not change until a tape has computed its gradients. Read it after :mod:`engine.autograd.tape`.

Tensors that a tape has recorded are *locked*: read-only, so that NumPy refuses writes into them and into new views of
them. Several tapes may need the same tensor, such as a weight, so a tensor counts its locks. NumPy does not report
writes to plain arrays, so of these a *sample* of elements is kept, and compared before the gradient is computed.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np

from engine.errors import GradientError

_SAMPLED_ELEMENTS = 64
"""Approximate number of elements of an operand that are compared; smaller operands are compared completely."""


class Lifetimes:
    """The tensors that a tape has locked, and samples of the plain operands of its operations."""

    __slots__ = ("_locked", "_operands")

    def __init__(self) -> None:
        self._locked: dict[int, weakref.ref[Any]] = {}
        self._operands: list[tuple[weakref.ref[Any], str, bytes]] = []

    def lock(self, tensor: Any) -> None:
        """Make a tensor read-only until :meth:`unlock`."""
        known = self._locked.get(id(tensor))
        if known is None or known() is not tensor:
            self._locked[id(tensor)] = weakref.ref(tensor)
            tensor._locks += 1
            tensor.flags.writeable = False

    def lock_with_bases(self, tensor: Any) -> None:
        """Lock a tensor, and the tensors of which it is a view."""
        base = tensor.base
        if type(base) is not np.ndarray and hasattr(base, "_locks"):
            self.lock_with_bases(base)
        if tensor._locks or tensor.flags.writeable:
            self.lock(tensor)

    def unlock(self) -> None:
        """Make the locked tensors writeable again, except those that another tape has locked, too."""
        for reference in self._locked.values():
            tensor = reference()
            if tensor is not None:
                tensor._locks -= 1
                if not tensor._locks and 0 not in tensor.strides:  # elements of a broadcast view share memory
                    with suppress(ValueError):  # a view of an array that is read-only anyway
                        tensor.flags.writeable = True
        self._locked = {}

    def __del__(self) -> None:
        self.unlock()

    def add_operands(self, operation: str, arrays: Iterable[Any]) -> None:
        """Keep a sample of each array that an operation uses, and that can be overwritten without notice."""
        self._operands.extend([(weakref.ref(array), operation, _sample(array)) for array in arrays])

    def refuse_overwritten(self) -> None:
        """Raise GradientError if an operand has changed since it was used, through a plain array on the same memory."""
        for reference, operation, elements in self._operands:
            array = reference()
            if array is not None and _sample(array) != elements:
                raise GradientError(
                    f"gradient: an array of shape {array.shape} was overwritten after {operation} had used it; "
                    "give the operation a copy, or take the gradient first",
                    operation=operation,
                )

    def forget_operands(self) -> None:
        """Drop the samples: the tape has computed its gradient."""
        self._operands = []


def _sample(array: Any) -> bytes:
    """A few evenly spaced elements of an array: enough to detect that it was overwritten, at little cost."""
    array = np.ndarray.view(array, np.ndarray)
    if array.size > _SAMPLED_ELEMENTS:
        per_axis = max(1, int(_SAMPLED_ELEMENTS ** (1 / array.ndim)))
        array = array[tuple([slice(None, None, -(-size // per_axis)) for size in array.shape])]
    elements: bytes = array.tobytes()
    return elements
