"""Trace: the calls of one run of a training step, and the memory that each of them reads and writes.

NumPy notifies the arrays of :mod:`engine.replay.traced_array` of every ufunc and function, and they append it to the
trace as a :class:`~engine.replay.calls.Call` with ``out=``. Views need no call, because they compute nothing.

What cannot be expressed this way raises :class:`~engine.replay.calls.NotReplayableError`: reads of memory that no call
has filled, and writes to memory that outlives the trace.
"""

from __future__ import annotations

import operator
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from engine.autograd.graph import Array
from engine.autograd.tensor import tree_map
from engine.memory import address
from engine.replay.calls import (
    Call,
    Location,
    NotReplayableError,
    ShapeChangedError,
    instances,
    owner,
    read_only,
    untraced,
)


class Trace:
    """The calls of one run of a function.

    It keeps no array that a call fills, so the traced run frees memory like an untraced one.

    Args:
        resident: arrays whose memory outlives the trace: parameters and inputs.
        changing: those of them that may be written to.

    Attributes:
        sizes: size in bytes of each buffer, which is memory that calls fill.
    """

    def __init__(self, resident: Iterable[Array], changing: Iterable[Array] = ()) -> None:
        self.calls: list[Call] = []
        self.sizes: list[int] = []
        # Owners of all known memory by id: resident arrays and constants, which are kept alive here, and the numbers of
        # buffers, which are removed when their owners are freed. So ids are unique.
        self._resident = {id(array): array for array in map(owner, resident)}
        self._changing = {id(array) for array in map(owner, changing)}
        self._constants: set[int] = set()
        self._buffers: dict[int, int] = {}
        self._watchers: dict[int, weakref.ref[Array]] = {}

    def is_known(self, array: Array) -> bool:
        """Whether the memory of ``array`` is resident or filled by a call."""
        key = id(owner(array))
        return key in self._buffers or key in self._resident

    def locate(self, array: Array | np.generic) -> Any:
        """The location of ``array``, or the array itself if it is resident or a constant.

        Raises:
            NotReplayableError: its memory is neither resident nor filled by an earlier call; or it is a NumPy scalar,
                which indicates a value that left the trace.
        """
        if isinstance(array, np.generic):
            raise NotReplayableError(f"a NumPy scalar of unknown origin, {array!r}")
        base = owner(array)
        number = self._buffers.get(id(base))
        if number is not None:
            return Location(number, address(array) - address(base), array.shape, array.strides, array.dtype)
        if id(base) not in self._resident:
            raise NotReplayableError(f"an array of unknown origin {array.shape}")
        return array

    def keep(self, result: Any) -> Array:
        """``result``, which a call has filled, as an array that owns its memory."""
        array: Array = np.asarray(result)
        if array.base is not None:
            array = array.copy("K")
        key = id(array)
        self._buffers[key] = len(self.sizes)
        self._watchers[key] = weakref.ref(array, lambda _: self._forget(key))
        self.sizes.append(array.nbytes)
        return array

    def _forget(self, key: int) -> None:
        del self._buffers[key], self._watchers[key]

    def constant(self, array: Array) -> Array:
        """``array``, which is the same in every run, such as the 1 from which a backward pass starts."""
        base = owner(array)
        self._resident[id(base)] = base
        self._constants.add(id(base))
        return array

    def result(self, array: Array) -> Array:
        """``array`` as a result into which a caller may write; a constant is copied."""
        if not self.is_constant(array):
            return array
        out = self.keep(array.copy())
        self.add(np.copyto, (out, array), {}, out)
        return out

    def is_constant(self, operands: Any) -> bool:
        """Whether ``operands`` contains arrays, and all of them are constants."""
        arrays = instances(operands, np.ndarray)
        return bool(arrays) and all(id(owner(array)) in self._constants for array in arrays)

    def refuse_resident(self, target: Array) -> None:
        """Raise NotReplayableError if ``target`` outlives the trace and is not in ``changing``."""
        key = id(owner(target))
        if key in self._resident and key not in self._changing:
            raise NotReplayableError(f"a write to an input or a resident array {target.shape}")

    def check_index(self, index: Any) -> None:
        """Check an index. Known arrays are allowed, and 0, 1, 2, ..., the only constant that indexing rows needs.

        Raises:
            NotReplayableError: a mask, because the shape of the result depends on the data, or an unknown array.
        """
        for array in instances(index, np.ndarray):
            if array.dtype == np.bool_:
                raise NotReplayableError("a mask as index: the shape of the result depends on the data")
            if not self.is_known(array):
                if not np.array_equal(array, np.arange(array.size)):
                    raise NotReplayableError(f"an index of unknown origin {array.shape}")
                self._resident[id(owner(array))] = owner(array)

    def add(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        options: dict[str, Any],
        out: Array,
        elementwise: bool = False,
        may_fail: bool = False,
    ) -> None:
        """Append a call.

        Raises:
            NotReplayableError: it reads memory that is neither resident nor filled by an earlier call.
        """
        args, options, location = tree_map((args, options, out), (np.ndarray, np.generic), self.locate)
        self.calls.append(Call(function, args, options, location, elementwise, may_fail))

    def store(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        options: dict[str, Any],
        *,
        is_shape_fixed: bool = False,
    ) -> Array:
        """Run a function that has no ``out=``, and append a call that stores its result.

        Args:
            is_shape_fixed: whether shapes and options determine the shape of the result; otherwise it may depend on
                the data.

        Raises:
            ValueError: the function writes into an argument. All arguments are read-only here, because NumPy functions
                accept targets in many ways (``out`` by position, ``copy=False``), and a call can have only one.
        """
        args, options = untraced(tuple(args)), untraced(options)
        read_args, read_options = tree_map((args, options), np.ndarray, read_only)
        result = function(*read_args, **read_options)
        if not isinstance(result, (np.ndarray, np.generic)):
            raise NotReplayableError(f"{_name(function)} gives {type(result).__name__}, not an array")
        if isinstance(result, np.ndarray) and self.is_known(result):
            if function not in _VIEWS:  # such as np.trim_zeros, whose view depends on the data
                raise NotReplayableError(f"{_name(function)} gives a view that may depend on the data")
            return result  # a view: nothing was computed
        out = self.keep(result)
        is_fixed = is_shape_fixed or function in _VIEWS or function in _FIXED_SHAPE
        self.add(_store if is_fixed else _store_checked, (function, out, *args), options, out, may_fail=not is_fixed)
        return out


class _Running(threading.local):
    trace: Trace | None = None


running = _Running()
"""The trace that is running in this thread, as ``running.trace``."""


def running_trace() -> Trace:
    """The trace that is running in this thread.

    Raises:
        NotReplayableError: no trace is running; a traced array was kept from a trace that has ended.
    """
    if running.trace is None:
        raise NotReplayableError("a traced array was kept from a trace that has ended")
    return running.trace


_VIEWS = {
    operator.getitem,  # its indices are checked by check_index
    *(np.reshape, np.ravel, np.squeeze, np.expand_dims, np.atleast_1d, np.atleast_2d, np.atleast_3d),
    *(np.transpose, np.matrix_transpose, np.swapaxes, np.moveaxis, np.rollaxis, np.rot90),
    *(np.flip, np.fliplr, np.flipud, np.diag, np.diagonal, np.real, np.broadcast_to),
}
"""Functions that may return views of a part that depends only on shapes and options."""


_FIXED_SHAPE = {
    *(np.dot, np.inner, np.outer, np.einsum, np.linalg.norm, np.concatenate, np.stack, np.hstack, np.vstack),
    *(np.full_like, np.zeros_like, np.ones_like, np.mean, np.var, np.std, np.prod, np.cumsum, np.trace),
    *(np.argmax, np.argmin, np.sort, np.argsort, np.clip, np.roll, np.tile, np.tril, np.triu),
    *(np.take_along_axis, np.where),
}
"""Functions without ``out=`` whose result has a shape that depends only on shapes and options."""


def _store(function: Callable[..., Any], out: Array, *args: Any, **options: Any) -> None:
    out[...] = function(*args, **options)


def _store_checked(function: Callable[..., Any], out: Array, *args: Any, **options: Any) -> None:
    result = np.asanyarray(function(*args, **options))
    if result.shape != out.shape or result.dtype != out.dtype:
        raise ShapeChangedError(
            f"{_name(function)} gives {result.dtype} {result.shape}, but gave {out.dtype} {out.shape} in the trace"
        )
    out[...] = result


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", repr(function))
