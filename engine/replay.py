"""Replay: a training step recorded once and played again, without the tape and without allocating.

A step does the same calls every time, as long as the shapes stay. So the first one is run on the plain tape, by arrays
that write down every NumPy call of the forward pass and of the VJPs (:mod:`engine.traced`). Those calls, laid out in
one block of memory (:mod:`engine.program`), are the following steps: the same functions on the same numbers, hence
the same bits. What tinygrad's TinyJit does with kernels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from engine.program import Program
from engine.recording import Array
from engine.traced import NotReplayableError, Recording, Traced, TracedGenerator, owner

Step: TypeAlias = Callable[..., Sequence[Array]]
"""``step(*inputs, rng=...) -> results``. It must depend on nothing else that changes, but resident arrays."""


@dataclass(slots=True)
class _Prepared:
    """A program with what goes in and comes out."""

    program: Program
    inputs: list[Array]
    generator: TracedGenerator
    results: list[Array]


class Replay:
    """Runs steps: the first time on the plain tape, then by replay.

    Each combination of a step and its inputs' shapes becomes a program; all use the same memory. A step that cannot
    be replayed is run plainly every time.

    Args:
        resident: arrays that stay where they are and change only in place: parameters, and inputs that the caller
            refills. Other inputs are copied.
        changing: more such arrays, which the steps themselves change: running statistics.
        enabled: False runs every step plainly.
    """

    def __init__(self, resident: Iterable[Array], *, changing: Iterable[Array] = (), enabled: bool = True) -> None:
        self._changing = list(changing)
        self._resident = [*resident, *self._changing]
        self._enabled = enabled
        self._prepared: dict[Any, _Prepared | None] = {}
        self._memory: Array = np.empty(0, np.uint8)

    @property
    def programs(self) -> list[Program]:
        """What has been recorded so far."""
        return [prepared.program for prepared in self._prepared.values() if prepared is not None]

    @property
    def size_bytes(self) -> int:
        """The memory that all programs share."""
        return self._memory.nbytes

    def __call__(self, step: Step, *inputs: Array, rng: np.random.Generator | None = None) -> Sequence[Array]:
        """The results of ``step(*inputs, rng=rng)``. The next call overwrites them; so may you."""
        if not self._enabled:
            return step(*inputs, rng=rng)
        key = (step, *((array.shape, array.dtype) for array in inputs))
        if key not in self._prepared:
            return self._record(key, step, inputs, rng)
        prepared = self._prepared[key]
        if prepared is None:
            return step(*inputs, rng=rng)
        for target, given in zip(prepared.inputs, inputs, strict=True):
            np.copyto(target, given)  # NumPy returns at once where both are the same memory
        prepared.generator.generator = rng
        with np.errstate(over="ignore"):  # as the sigmoid does, whose calls are among these
            prepared.program.play()
        return prepared.results

    def _record(
        self, key: Any, step: Step, inputs: Sequence[Array], rng: np.random.Generator | None
    ) -> Sequence[Array]:
        lasting = {id(owner(array)) for array in self._resident}
        own = [array if id(owner(array)) in lasting else np.array(array) for array in inputs]
        generator = TracedGenerator(rng)
        before = None if rng is None else dict(rng.bit_generator.state)
        values = [array.copy() for array in self._changing]
        program = None
        with contextlib.suppress(NotReplayableError), Recording([*self._resident, *own]) as recording:
            traced = step(*(array.view(Traced) for array in own), rng=rng and generator)
            results = [np.asarray(array) for array in traced]
            program = Program(recording, results)
        if program is None:
            self._prepared[key] = None
            if rng is not None and before is not None:
                rng.bit_generator.state = before  # as if nothing had been drawn
            for array, value in zip(self._changing, values, strict=True):
                np.copyto(array, value)
            return step(*inputs, rng=rng)
        self._prepared[key] = _Prepared(program, own, generator, [])
        self._bind()
        return results

    def _bind(self) -> None:
        """Give all programs memory: what the largest needs serves them all, one at a time."""
        needed = max(program.size_bytes for program in self.programs)
        if needed > self._memory.nbytes:
            block = np.empty(needed + 64, np.uint8)
            start = -block.__array_interface__["data"][0] % 64
            self._memory = block[start : start + needed]
        for prepared in self._prepared.values():
            if prepared is not None:
                prepared.results = prepared.program.bind(self._memory)
