"""Plan: the calls of a trace, laid out in one block of memory and ready to be replayed.

In a trace, each result has its own memory. A plan computes the lifetime of each result, and lets results that are never
needed at the same time share memory, like a compiler's register allocation. The layout is "greedy by size" of Pisarchyk
& Lee 2020 (arXiv:2001.03288).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from engine.autograd.graph import Array
from engine.autograd.tensor import tree_map
from engine.memory import LINE
from engine.replay.calls import Call, Location, NotReplayableError, instances
from engine.replay.trace import Trace


@dataclass(slots=True)
class _Buffer:
    """Memory that is needed from call ``first`` to call ``last``, inclusive."""

    size: int
    first: int = sys.maxsize
    last: int = -1


class Plan:
    """A traced function as calls on memory that :meth:`bind` provides.

    Args:
        results: the results of the function: arrays computed by calls, or resident ones.

    Attributes:
        calls: with locations instead of arrays.
        size_bytes: size of the memory that :meth:`bind` needs.
        may_fail: whether :meth:`play` may raise ShapeChangedError.
    """

    def __init__(self, trace: Trace, results: Sequence[Array]) -> None:
        for result in results:
            if not trace.is_known(result):
                raise NotReplayableError(f"a result of unknown origin {result.shape}")
        self.calls = trace.calls
        self._results = [trace.locate(result) for result in results]
        self._buffers = [_Buffer(size) for size in trace.sizes]
        _find_lifetimes(self.calls, self._results, self._buffers)
        aliases = _overwrite_dead_arguments(self.calls, self._buffers)
        offsets, self.size_bytes = _lay_out(self._buffers)
        self._offsets = [offsets[alias] for alias in aliases]
        self._bound: list[Callable[[], Any]] = []
        self.may_fail = any(call.may_fail for call in self.calls)

    def bind(self, memory: Array) -> list[Array]:
        """Bind the plan to ``memory`` of at least ``size_bytes`` bytes; returns the arrays for its results."""

        def array_at(location: Location) -> Array:
            if 0 in location.shape:  # an empty view may begin beyond the end of its buffer
                return np.empty(location.shape, location.dtype)
            start = self._offsets[location.buffer] + location.offset
            return np.ndarray(location.shape, location.dtype, memory, start, location.strides)

        self._bound = []
        for call in self.calls:
            args, options = tree_map((call.args, call.options), Location, array_at)
            self._bound.append(partial(call.function, *args, **options))
        return [tree_map(result, Location, array_at) for result in self._results]

    def release(self) -> list[Array]:
        """Drop the bound memory; returns no results."""
        self._bound = []
        return []

    def play(self) -> None:
        """Run all calls, in order."""
        for call in self._bound:
            call()


def _find_lifetimes(calls: Sequence[Call], results: Sequence[Any], buffers: Sequence[_Buffer]) -> None:
    for index, call in enumerate(calls):
        for location in instances((call.args, call.options), Location):
            buffer = buffers[location.buffer]
            buffer.first = min(buffer.first, index)
            buffer.last = index
    for location in instances(results, Location):
        buffers[location.buffer].last = len(calls)


def _overwrite_dead_arguments(calls: Sequence[Call], buffers: Sequence[_Buffer]) -> list[int]:
    """Let elementwise calls overwrite an argument that is not needed afterwards, to access less memory.

    Returns:
        For each buffer, the buffer that replaces it: itself, or that of such an argument.
    """
    aliases = list(range(len(buffers)))
    for index, call in enumerate(calls):
        out: Any = call.out
        if not call.elementwise or not isinstance(out, Location) or buffers[out.buffer].first < index:
            continue
        for argument in instances(call.args, Location):
            heir, dying = buffers[out.buffer], buffers[aliases[argument.buffer]]
            if dying.last == index and replace(argument, buffer=out.buffer) == out and dying.size == heir.size:
                dying.last = heir.last
                heir.size = 0
                aliases[out.buffer] = aliases[argument.buffer]
                break
    return aliases


def _lay_out(buffers: Sequence[_Buffer]) -> tuple[list[int], int]:
    """Offsets at which no two buffers with overlapping lifetimes overlap, and the total size."""
    offsets = [0] * len(buffers)
    assigned: list[int] = []
    total = 0
    for number in sorted(range(len(buffers)), key=lambda n: -buffers[n].size):
        buffer, offset = buffers[number], 0
        size = -(-buffer.size // LINE) * LINE
        # The lowest gap between the assigned buffers with overlapping lifetimes.
        for other in sorted(assigned, key=lambda n: offsets[n]):
            if buffers[other].first <= buffer.last and buffer.first <= buffers[other].last:
                if offset + size <= offsets[other]:
                    break
                offset = max(offset, offsets[other] + -(-buffers[other].size // LINE) * LINE)
        offsets[number] = offset
        total = max(total, offset + size)
        assigned.append(number)
    return offsets, total
