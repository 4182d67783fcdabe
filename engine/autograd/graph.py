"""The graph that a tape records: nodes, records, and the tape that is running in this thread.

:mod:`engine.autograd.tensor` appends to it and :mod:`engine.autograd.tape` reads it backwards.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from engine.autograd.lifetimes import Lifetimes

Array: TypeAlias = np.ndarray[Any, Any]

Vjp: TypeAlias = Callable[[Array], Array]
"""Vector-Jacobian product: maps the gradient of an output to the gradient of one input."""


@dataclass(eq=False, slots=True)
class Node:
    """The identity of a tensor on a tape: the key under which gradients are accumulated.

    It holds no array. A record keeps nodes, and its VJPs keep only the arrays that they need, so intermediate
    values that no VJP needs are freed during the forward pass.

    Attributes:
        leaf: True for a tensor made with ``watch=True``, False for the output of a recorded operation.
        tape: weak reference to the tape that recorded the operation; None for a leaf.
    """

    leaf: bool
    tape: weakref.ref[Recorder] | None = None


@dataclass(eq=False, slots=True)
class Record:
    """One operation: the node of its output, and an edge (node, VJP) for each tracked input.

    Attributes:
        make_recorded_vjp: creates the VJP of an edge again, on tensors instead of arrays, so that its computation is
            recorded (for gradients of gradients). None on a tape that keeps no graph.
    """

    name: str
    output: Node
    edges: list[tuple[Node, Vjp]]
    make_recorded_vjp: Callable[[int], Vjp] | None = None


class Recorder:
    """The part of a tape that operations use: the list of records to which they append.

    Args:
        keeps_graph: whether records keep tensors, so that the gradient can be differentiated again.

    Attributes:
        lifetimes: what must not change until the gradient is computed.
    """

    __slots__ = ("__weakref__", "keeps_graph", "lifetimes", "records", "reference")

    def __init__(self, keeps_graph: bool) -> None:
        self.keeps_graph = keeps_graph
        self.records: list[Record] = []
        self.lifetimes = Lifetimes()
        # One weak reference per tape, shared by all its nodes: nodes refer to their tape without keeping it alive.
        self.reference: weakref.ref[Recorder] = weakref.ref(self)


class _Running(threading.local):
    recorder: Recorder | None = None


running = _Running()
"""``running.recorder`` is the tape that is running in this thread. Threads do not see each other's tapes."""
