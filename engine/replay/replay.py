"""Replay: a training step is traced once and then replayed, without the tape and without allocating memory.

A step makes the same calls every time, as long as the shapes are the same. So the first step runs on the plain tape, on
arrays that append every NumPy call of the forward pass and of the VJPs to a trace (:mod:`engine.replay.trace`). The
following steps run only these calls, laid out in one block of memory (:mod:`engine.replay.plan`): the same functions on
the same numbers, hence the same bits. tinygrad's TinyJit does the same with kernels.

The second step runs both ways, and so does the first step after :meth:`Replay.verify_again`. The plan is used from then
on only if all bits agree. This detects values that left the trace (``float(np.asarray(x)[0])``), which are constants in
the plan, and settings and arrays of Python objects that were replaced since.
"""

from __future__ import annotations

import json
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from engine import memory
from engine.autograd.graph import Array
from engine.autograd.tracing import is_tracing
from engine.errors import EngineError
from engine.replay.calls import ShapeChangedError, owner, writeable
from engine.replay.plan import Plan
from engine.replay.trace import Trace
from engine.replay.traced_array import TracedGenerator, traced, tracing

Step: TypeAlias = Callable[..., Sequence[Array]]
"""``step(*inputs, rng=...) -> results``. It has no side effects, and depends only on its arguments and resident arrays.

Values that it reads from Python objects (a rate, a switch) keep the value from the time of tracing until the next
:meth:`Replay.verify_again`.
"""

MAX_PLANS = 64
"""Maximum number of plans; further steps or shapes run on the tape. A function created for each call is a new step."""
_KEPT_BYTES = 2**19
"""Size of memory that a verification keeps, because binding the plans again takes as long as several small steps."""


@dataclass(slots=True)
class _Prepared:
    """A plan with its inputs and results."""

    plan: Plan
    inputs: list[Array | None]  # memory into which an input is copied; None for resident ones
    generator: TracedGenerator
    results: list[Array]
    bound: bool = False  # to memory
    due: bool = True  # to be compared with the plain tape at its next use
    verified: bool = False  # whether it agreed with the plain tape before


@contextmanager
def _read_only(arrays: Sequence[Array]) -> Iterator[None]:
    """Make these arrays read-only inside the block, also through ``np.asarray``; earlier views can still write."""
    writeable = [array for array in arrays if array.flags.writeable]
    for array in writeable:
        array.flags.writeable = False
    try:
        yield
    finally:
        for array in writeable:
            array.flags.writeable = True


class Replay:
    """Runs steps: the first two times on the plain tape, then by replay.

    Each combination of a step and the shapes of its inputs becomes a plan; all plans share one block of memory. A step
    that cannot be replayed always runs on the tape. Only one thread may use a Replay at a time.

    Args:
        resident: arrays that keep their memory and change only in place, between steps: parameters, and inputs that the
            caller refills. Other inputs are copied.
        changing: further such arrays that the steps themselves change, such as running statistics.
        enabled: False runs every step on the tape.
    """

    def __init__(self, resident: Iterable[Array], *, changing: Iterable[Array] = (), enabled: bool = True) -> None:
        self._changing, self._unchanging = list(changing), list(resident)
        self._resident = [*self._unchanging, *self._changing]
        self._resident_ids = {id(array) for array in self._resident}
        self._owners = {id(owner(array)) for array in self._resident}
        self._enabled = enabled
        self._prepared: dict[Any, _Prepared | None] = {}
        self._memory: Array = np.empty(0, np.uint8)
        self._in_use = threading.RLock()

    @property
    def plans(self) -> list[Plan]:
        """The plans traced so far."""
        return [prepared.plan for prepared in self._prepared.values() if prepared is not None]

    @property
    def size_bytes(self) -> int:
        """Size of the memory that all plans share."""
        return self._memory.nbytes

    def verify_again(self) -> None:
        """Run the next step of each plan both ways, like the second one. Trainers call it before epochs."""
        for prepared in self._prepared.values():
            if prepared is not None:
                prepared.due = True

    def __call__(self, step: Step, *inputs: Array, rng: np.random.Generator | None = None) -> Sequence[Array]:
        """The results of ``step(*inputs, rng=rng)``. The next call overwrites them; the caller may overwrite them too.

        Warns:
            RuntimeWarning: a plan that was verified before does not agree with the tape any more.

        Raises:
            EngineError: another thread is inside this replay.
        """
        if not self._enabled:
            return step(*inputs, rng=rng)
        if not self._in_use.acquire(blocking=False):
            raise EngineError("a Replay is used by two threads at the same time; create one for each thread")
        try:
            key = (step, rng is None, *map(self._kind, inputs))
            prepared = self._prepared.get(key)
            if is_tracing():  # inside the step of another replay: part of its trace
                return step(*inputs, rng=rng)
            if prepared is not None and not prepared.due:
                before = self._state(rng) if prepared.plan.may_fail else None
                try:
                    self._play(prepared, inputs, rng)
                except ShapeChangedError:
                    if before is None:
                        raise
                    self._restore(rng, before)
                    self._prepared[key] = None
                    return step(*inputs, rng=rng)
                return prepared.results
            if prepared is not None:
                return self._check(key, prepared, step, inputs, rng)
            if key in self._prepared or None in key or len(self._prepared) >= MAX_PLANS:
                return step(*inputs, rng=rng)
            return self._trace(key, step, inputs, rng)
        finally:
            self._in_use.release()

    def _kind(self, array: Array) -> Any:
        """The properties of an input that a plan depends on: its location if it is resident, otherwise its shape, order
        and dtype.

        None for non-contiguous memory, because NumPy may sum it in another order than a copy, so that bits differ.
        """
        if id(array) in self._resident_ids:
            return id(array)  # the array lives as long as this replay, so the id is unique
        if id(owner(array)) in self._owners:
            return array.shape, array.dtype, array.strides, memory.address(array)
        if array.flags.c_contiguous:
            return array.shape, array.dtype
        return (array.shape, array.dtype, "F") if array.flags.f_contiguous else None

    def _play(self, prepared: _Prepared, inputs: Sequence[Array], rng: np.random.Generator | None) -> None:
        if not prepared.bound:
            self._bind(prepared)
        for target, source in zip(prepared.inputs, inputs, strict=True):
            if target is not None:
                np.copyto(target, source)
        prepared.generator.generator = rng
        with np.errstate(over="ignore"):  # like the sigmoid, whose calls may be among these
            prepared.plan.play()

    def _trace(self, key: Any, step: Step, inputs: Sequence[Array], rng: np.random.Generator | None) -> Sequence[Array]:
        resident = [id(owner(array)) in self._owners for array in inputs]
        arrays = [
            array if is_resident else np.array(array) for array, is_resident in zip(inputs, resident, strict=True)
        ]
        generator = TracedGenerator(rng)
        before, digests = self._state(rng), self._digests([*self._unchanging, *arrays], None)
        try:
            trace = Trace([*self._resident, *arrays], self._changing)
            with _read_only([*self._unchanging, *arrays]), tracing(trace):
                outputs = step(*map(traced, arrays), rng=rng and generator)
                results = [trace.result(np.asarray(array)) for array in outputs]
                plan = Plan(trace, results)
        except Exception as error:  # not replayable, or an error of the step: the plain run shows which
            if self._digests([*self._unchanging, *arrays], None) != digests:  # running it again would change it twice
                raise EngineError(
                    f"a step that is replayed changed a resident array, and then failed: {error}"
                ) from error
            self._restore(rng, before)
            plain_results = step(*inputs, rng=rng)
            self._prepared[key] = None
            return plain_results
        results = [writeable(array) for array in results]
        if self._digests([*self._unchanging, *arrays], None) != digests:
            self._prepared[key] = None  # a plan would not repeat an untraced change
            return results
        copies = [None if is_resident else array for array, is_resident in zip(arrays, resident, strict=True)]
        self._prepared[key] = _Prepared(plan, copies, generator, [])
        return results

    def _check(
        self, key: Any, prepared: _Prepared, step: Step, inputs: Sequence[Array], rng: np.random.Generator | None
    ) -> Sequence[Array]:
        """Replay the plan, then run the step on the tape; keep the plan if all bits agree."""
        before = self._state(rng)
        # Replaying overwrites results of other plans. If they are inputs, both runs must get the original values.
        inputs = [
            array if target is None else array.copy("K") for array, target in zip(inputs, prepared.inputs, strict=True)
        ]
        try:
            self._play(prepared, inputs, rng)
        except ShapeChangedError:
            replay_digests = None
        else:
            replay_digests = self._digests([*prepared.results, *self._resident], rng)
        if self._memory.nbytes > _KEPT_BYTES:
            self._release()  # so that this step needs no more memory than a plain one
        self._restore(rng, before)
        results = step(*inputs, rng=rng)
        if replay_digests == self._digests([*results, *self._resident], rng):
            prepared.due, prepared.verified = False, True
            return results
        self._prepared[key] = None
        if prepared.verified:
            warnings.warn(
                f"{getattr(step, '__qualname__', step)}: its replay and the tape differ, although they agreed earlier. "
                "The step reads something that has changed since: a setting, a replaced array, or a number computed "
                "from np.asarray(tensor). It runs on the tape from now on; any step that was replayed after the change "
                "is wrong",
                RuntimeWarning,
                stacklevel=3,
            )
        return results

    def _state(self, rng: np.random.Generator | None) -> tuple[Any, list[Array]]:
        """A copy of the state that a step can change: that of the generator, and the arrays in ``changing``."""
        return None if rng is None else rng.bit_generator.state, [array.copy() for array in self._changing]

    def _restore(self, rng: np.random.Generator | None, state: tuple[Any, list[Array]]) -> None:
        if rng is not None:
            rng.bit_generator.state = state[0]
        for array, value in zip(self._changing, state[1], strict=True):
            np.copyto(array, value)

    def _digests(self, arrays: Sequence[Array], rng: np.random.Generator | None) -> list[Any]:
        """Checksums of arrays, and the state of a generator. A cryptographic hash would take five times as long."""
        generator_state = (
            None if rng is None else json.dumps(rng.bit_generator.state, default=lambda array: array.tolist())
        )
        buffers: list[Any] = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays]
        digests = [zlib.crc32(buffer) for buffer in buffers]
        return [
            generator_state,
            *((array.shape, array.dtype, digest) for array, digest in zip(arrays, digests, strict=True)),
        ]

    def _bind(self, prepared: _Prepared) -> None:
        """Bind a plan to the shared memory, which has the size of the largest plan."""
        if prepared.plan.size_bytes > self._memory.nbytes:
            self._release()
            size_bytes = max(plan.size_bytes for plan in self.plans)
            self._memory = memory.empty((size_bytes,), np.uint8)
        prepared.results = prepared.plan.bind(self._memory)
        prepared.bound = True

    def _release(self) -> None:
        """Release the memory of all plans; the next use binds them again."""
        for prepared in self._prepared.values():
            if prepared is not None and prepared.bound:
                prepared.results, prepared.bound = prepared.plan.release(), False
        self._memory = np.empty(0, np.uint8)
