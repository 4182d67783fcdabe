"""The graph that a tape records: nodes, records, and the tape that is running in this thread.

:mod:`engine.autograd.tensor` appends to it and :mod:`engine.autograd.tape` reads it backwards.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np

from engine.errors import GradientError

Array: TypeAlias = np.ndarray[Any, Any]

Vjp: TypeAlias = Callable[[Array], Array]
"""Vector-Jacobian product: maps the gradient of an output to the gradient of one input."""


class Node:
    """The identity of a tensor on a tape: the key under which gradients are accumulated.

    It holds no array. A record keeps nodes, and its VJPs keep only the arrays that they need, so intermediate
    values that no VJP needs are freed during the forward pass.

    Attributes:
        leaf: True for a tensor made with ``watch=True``, False for the output of a recorded operation.
        tape: weak reference to the tape that recorded the operation; None for a leaf.
    """

    __slots__ = ("leaf", "tape")

    def __init__(self, leaf: bool, tape: weakref.ref[Recorder] | None = None) -> None:
        self.leaf = leaf
        self.tape = tape


class Record:
    """One operation: the node of its output, and an edge (node, VJP) for each tracked input.

    Args:
        make_recorded_vjp: creates the VJP of an edge again, on tensors instead of arrays, so that its computation is
            recorded (for gradients of gradients). None on a tape that keeps no graph.
    """

    __slots__ = ("edges", "make_recorded_vjp", "name", "output")

    def __init__(
        self,
        name: str,
        output: Node,
        edges: list[tuple[Node, Vjp]],
        make_recorded_vjp: Callable[[int], Vjp] | None = None,
    ) -> None:
        self.name = name
        self.output = output
        self.edges = edges
        self.make_recorded_vjp = make_recorded_vjp


SAMPLED_ELEMENTS = 64
"""Approximate number of elements of an operand that are compared; smaller operands are compared completely."""


class Recorder:
    """The part of a tape that operations use: the list of records to which they append.

    Args:
        keeps_graph: whether records keep tensors, so that the gradient can be differentiated again.

    Attributes:
        operands: arrays that can be overwritten without notice: a weak reference, the operation that used them, and a
            sample of their elements.
    """

    __slots__ = ("__weakref__", "_locked", "keeps_graph", "operands", "records", "reference")

    def __init__(self, keeps_graph: bool) -> None:
        self.keeps_graph = keeps_graph
        self.records: list[Record] = []
        self.operands: list[tuple[weakref.ref[Array], str, bytes]] = []
        # One weak reference per tape, shared by all its nodes: nodes refer to their tape without keeping it alive.
        self.reference: weakref.ref[Recorder] = weakref.ref(self)
        self._locked: dict[int, weakref.ref[Any]] = {}

    def lock(self, tensor: Any) -> None:
        """Make a tensor read-only until :meth:`unlock`, so that NumPy refuses to write into it or new views of it."""
        known = self._locked.get(id(tensor))
        if known is None or known() is not tensor:
            self._locked[id(tensor)] = weakref.ref(tensor)
            tensor._locks += 1
            tensor.flags.writeable = False

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


def sample(array: Array) -> bytes:
    """A few evenly spaced elements of an array: enough to detect that it was overwritten, at little cost."""
    if array.size > SAMPLED_ELEMENTS:
        per_axis = max(1, int(SAMPLED_ELEMENTS ** (1 / array.ndim)))
        array = array[tuple([slice(None, None, -(-size // per_axis)) for size in array.shape])]
    return array.tobytes()


def _identity(array: Array) -> Array:
    return array


class _Running(threading.local):
    recorder: Recorder | None = None
    array_class: type[Array] = np.ndarray
    constant: Callable[[Array], Array] = staticmethod(_identity)


def is_tracing() -> bool:
    """Whether a replay is tracing the current step in this thread."""
    return running.array_class is not np.ndarray


def refuse_in_trace(operation: str) -> None:
    """Raise if a replay is tracing the current step. Call it before changing Python state, which a replay cannot see,
    and before converting an array to a Python value, which would be constant in the replay.

    Raises:
        GradientError: a step is being traced; the replay then always runs it on the tape.
    """
    if is_tracing():
        raise GradientError(f"{operation} cannot be part of a step that is replayed; call it on the step's results")


running = _Running()
"""``running.recorder`` is the tape that is running in this thread. Threads do not see each other's tapes.

``running.array_class`` is the class of arrays that primitives compute on: plain arrays, or the traced ones of
:mod:`engine.replay`. ``running.constant`` converts an array that is the same in every run of a step to this class.
"""
