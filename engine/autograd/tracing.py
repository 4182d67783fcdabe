"""What the tape has to do with a replay (:mod:`engine.replay`). Read it after :mod:`engine.autograd.tape`.

A replay runs a step on the tape once, on arrays that append every NumPy call to a trace. So primitives compute on
``computing.array_class``, whichever it is, and whatever a trace cannot see is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from engine.autograd.graph import Array
from engine.errors import GradientError


class _Computing(threading.local):
    array_class: type[Array] = np.ndarray
    constant: Callable[[Array], Array] = staticmethod(lambda array: array)


computing = _Computing()
"""``computing.array_class`` is the class of arrays that primitives compute on in this thread: plain arrays, or traced
ones. ``computing.constant`` converts an array that is the same in every run of a step to this class.
"""


def is_tracing() -> bool:
    """Whether a replay is tracing the current step in this thread."""
    return computing.array_class is not np.ndarray


def refuse_in_trace(operation: str) -> None:
    """Raise if a replay is tracing the current step. Call it before changing Python state, which a replay cannot see,
    and before converting an array to a Python value, which would be constant in the replay.

    Raises:
        GradientError: a step is being traced; the replay then always runs it on the tape.
    """
    if is_tracing():
        raise GradientError(f"{operation} cannot be part of a step that is replayed; call it on the step's results")
