"""The graph that a tape records: nodes, records, and which tape is running in this thread.

:mod:`engine.autograd.tensor` appends to it and :mod:`engine.autograd.tape` reads it backwards.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from engine.errors import GradientError

Array: TypeAlias = np.ndarray[Any, Any]

Vjp: TypeAlias = Callable[[Array], Array]
"""Vector-Jacobian product: the gradient of an output in, the gradient of one input out."""


class Node:
    """The identity of a tensor on a tape: what gradients are filed under.

    It holds no array. A record keeps nodes, and its VJPs keep only the arrays they need; so an intermediate
    value that no VJP needs is freed during the forward pass.

    Attributes:
        leaf: True for a tensor made with ``watch=True``, False for the output of a recorded operation.
        tape: weak reference to the tape that recorded it last, or None.
        earlier: tapes that recorded it before, and kept their records when the last one came.
    """

    __slots__ = ("earlier", "leaf", "tape")

    def __init__(self, leaf: bool, tape: weakref.ref[Recorder] | None = None) -> None:
        self.leaf = leaf
        self.tape = tape
        self.earlier: tuple[weakref.ref[Recorder], ...] = ()

    def hold(self, tape: weakref.ref[Recorder]) -> None:
        """Note that ``tape`` keeps a record that this node is part of."""
        if self.tape is not tape:
            if self.tape is not None:
                self.earlier = tuple(filter(_keeps_records, (*self.earlier, self.tape)))
            self.tape = tape

    def is_held(self) -> bool:
        """Whether a tape still keeps records that this node is part of."""
        if self.tape is None:
            return False
        return _keeps_records(self.tape) or any(map(_keeps_records, self.earlier))


def _keeps_records(reference: weakref.ref[Recorder]) -> bool:
    tape = reference()
    return tape is not None and bool(tape.records)


class Record:
    """One operation: the node of its output, and for each input that is tracked its node and its VJP.

    Args:
        again: makes the VJP of an edge anew, on tensors instead of arrays, so that what it computes is recorded: for
            gradients of gradients. None on a tape that keeps no graph.
    """

    __slots__ = ("again", "edges", "name", "output")

    def __init__(
        self, name: str, output: Node, edges: list[tuple[Node, Vjp]], again: Callable[[int], Vjp] | None = None
    ) -> None:
        self.name = name
        self.output = output
        self.edges = edges
        self.again = again


SAMPLED_ELEMENTS = 64
"""About how many elements of an operand are compared; of one that has no more, all are."""


class Recorder:
    """The part of a tape that operations see: the list they append to.

    Args:
        verify: whether operations add to ``operands``.
        keeps_graph: whether records keep tensors, so that the gradient has a gradient.

    Attributes:
        operands: arrays that others may write to unseen, by a weak reference, with the operation that they went into
            and a sample of their numbers.
    """

    __slots__ = ("__weakref__", "keeps_graph", "operands", "records", "reference", "verify")

    def __init__(self, verify: bool, keeps_graph: bool) -> None:
        self.verify = verify
        self.keeps_graph = keeps_graph
        self.records: list[Record] = []
        self.operands: list[tuple[weakref.ref[Array], str, bytes]] = []
        # One weak reference a tape, shared by all its nodes: nodes know their tape without keeping it alive.
        self.reference: weakref.ref[Recorder] = weakref.ref(self)


def sample(array: Array) -> bytes:
    """Some elements of an array, evenly spread: enough to notice that it was overwritten, and too few to cost time."""
    if array.size > SAMPLED_ELEMENTS:
        an_axis = max(1, int(SAMPLED_ELEMENTS ** (1 / array.ndim)))
        array = array[tuple([slice(None, None, -(-size // an_axis)) for size in array.shape])]
    return array.tobytes()


def _as_it_is(array: Array) -> Array:
    return array


class _Running(threading.local):
    recorder: Recorder | None = None
    array_class: type[Array] = np.ndarray
    constant: Callable[[Array], Array] = staticmethod(_as_it_is)


def refuse_in_trace(what: str) -> None:
    """Raise if a replay is tracing the step that this thread is in: what Python objects keep would change unseen.

    Raises:
        GradientError: a step is being traced; a replay then runs it plainly each time.
    """
    if running.array_class is not np.ndarray:
        raise GradientError(f"{what} cannot be part of a step that is replayed; call it on the step's results")


running = _Running()
"""The tape that is running in this thread, as ``running.recorder``. Threads do not see each other's tapes.

``running.array_class`` is what primitives compute on: plain arrays, or the traced ones of :mod:`engine.replay`; and
``running.constant`` makes such an array of one that is the same in each run of a step.
"""
