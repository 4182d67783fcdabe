"""Arrays that append all operations on them to the running trace.

NumPy calls the same protocols as for tensors. Primitives compute on these arrays without being aware of it, so there is
no second set of rules that could differ from the first.

Operations by which a value could leave the trace raise NotReplayableError: conversion to a Python number
(``float(x)``), iteration, and methods that bypass the protocols.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from engine.autograd.graph import Array
from engine.autograd.numpy_dispatch import CONVERSIONS, WRITERS
from engine.autograd.tensor import Tensor
from engine.autograd.tracing import computing
from engine.replay.calls import NotReplayableError, instances, read_only, untraced, writeable
from engine.replay.trace import Trace, running, running_trace


@contextmanager
def tracing(trace: Trace) -> Iterator[None]:
    """Inside the block, primitives in this thread compute on traced arrays, and append their calls to ``trace``."""
    running.trace, computing.array_class = trace, TracedArray
    computing.constant = lambda array: traced(trace.constant(array))
    try:
        yield
    finally:
        running.trace, computing.array_class = None, np.ndarray
        del computing.constant


class TracedArray(np.ndarray[Any, Any]):
    """An array on the memory of the trace that is running in this thread.

    It is read-only, also through ``np.asarray``, because only calls in the trace may write. See :func:`traced`.
    """

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(isinstance(value, Tensor) for value in inputs):
            return NotImplemented  # the tape comes first; its primitives come back here
        if ufunc.nout != 1 or method not in ("__call__", "reduce"):
            raise NotReplayableError(f"np.{ufunc.__name__}.{method} is not supported")
        function = ufunc if method == "__call__" else getattr(ufunc, method)
        (requested_out,) = kwargs.pop("out", None) or (None,)
        inputs, kwargs = untraced(inputs), untraced(kwargs)
        if requested_out is None:
            result = function(*inputs, **kwargs)
            if result.size == 1 and running_trace().is_constant((inputs, kwargs)):
                return traced(running_trace().constant(np.asarray(result)))
            target = traced(running_trace().keep(result))
        else:
            target = requested_out
            running_trace().refuse_resident(requested_out)
            function(*inputs, out=writeable(untraced(requested_out)), **kwargs)
        out = writeable(untraced(target))
        elementwise = method == "__call__" and ufunc.signature is None and "where" not in kwargs
        running_trace().add(function, inputs, kwargs | {"out": out}, out, elementwise)
        return target

    def __array_function__(self, func: Callable[..., Any], types: Iterable[type], args: Any, kwargs: Any) -> Any:
        if func in _AS_UFUNCS:
            return super().__array_function__(func, types, args, kwargs)
        if func in (np.shape, np.ndim, np.size):
            return func(*untraced(args), **untraced(kwargs))
        if func is np.empty_like:  # by which primitives get memory that later calls fill in pieces
            return traced(running_trace().keep(func(*untraced(args), **untraced(kwargs))))
        if func in WRITERS or "out" in kwargs:
            raise NotReplayableError(f"np.{func.__name__} with a target is not supported")
        return traced(running_trace().store(func, args, kwargs))

    def __getitem__(self, index: Any) -> Any:
        running_trace().check_index(index)
        return traced(running_trace().store(operator.getitem, (self, index), {}))

    def __setitem__(self, index: Any, value: Any) -> None:
        running_trace().refuse_resident(self)
        running_trace().check_index(index)
        target, index, value = untraced((self, index, value))
        writeable(target)[index] = value
        running_trace().add(operator.setitem, (target, index, value), {}, target)

    def astype(self, dtype: Any) -> Any:  # type: ignore[override]  # other options are refused by Python
        """A traced copy with another dtype."""
        return self._copied(np.asarray(self).astype(dtype))

    def copy(self, order: Any = "C") -> Any:
        """A traced copy."""
        return self._copied(np.asarray(self).copy(order))

    def reshape(self, *shape: Any, **options: Any) -> Any:
        """A view if the memory layout permits it, otherwise a traced copy."""
        sizes = shape[0] if len(shape) == 1 else shape
        return traced(running_trace().store(np.reshape, (self, sizes), options))

    def ravel(self, order: Any = "C") -> Any:
        """Like :meth:`reshape` to one axis."""
        return traced(running_trace().store(np.ravel, (self, order), {}))

    def _copied(self, result: Array) -> Any:
        out = running_trace().keep(result)
        running_trace().add(np.copyto, (out, untraced(self)), {"casting": "unsafe"}, out)
        return traced(out)

    @property
    def flat(self) -> Any:
        """An error, because the iterator bypasses the trace."""
        raise NotReplayableError("ndarray.flat leaves the trace")

    def __pow__(self, other: Any, modulo: None = None) -> Any:
        # If a traced array has no axes, the plain run may have a NumPy scalar, whose powers differ in the last bit.
        if self.ndim == 0:
            raise NotReplayableError("a power of a number")
        return super().__pow__(other)

    def __rpow__(self, other: Any, modulo: None = None) -> Any:
        if self.ndim == 0:
            raise NotReplayableError("a power of a number")
        return super().__rpow__(other)


def traced(array: Array) -> TracedArray:
    """An array of the running trace as a read-only traced array."""
    return read_only(array).view(TracedArray)


class TracedGenerator:
    """Replaces a random generator in a trace: each replay repeats the draws with its own generator."""

    def __init__(self, generator: np.random.Generator | None) -> None:
        self.generator = generator  # the generator to draw from; each replay sets its own

    def __getattr__(self, distribution: str) -> Callable[..., Any]:
        if distribution in ("shuffle", "bit_generator", "spawn"):
            raise NotReplayableError(f"Generator.{distribution} cannot be traced")

        def draw(*args: Any, **options: Any) -> Any:
            return getattr(self.generator, distribution)(*args, **options)

        def trace(*args: Any, **options: Any) -> Any:
            if "out" in options:
                raise NotReplayableError(f"Generator.{distribution} with a target is not supported")
            is_shape_fixed = not instances((args, options), np.ndarray)
            return traced(running_trace().store(draw, args, options, is_shape_fixed=is_shape_fixed))

        return trace


_AS_UFUNCS = {np.sum, np.max, np.min, np.amax, np.amin}
"""Functions that NumPy implements by the ``reduce`` of a ufunc, which takes ``out=``."""


def _refuse(name: str) -> None:
    def method(self: TracedArray, *args: Any, **kwargs: Any) -> Any:
        raise NotReplayableError(f"ndarray.{name} leaves the trace")

    setattr(TracedArray, name, method)


# Methods that return views, call ufuncs, or return memory that no call fills; others could leave the trace.
_FOLLOWED = {"astype", "copy", "max", "min", "ravel", "reshape", "squeeze", "sum", "swapaxes", "transpose", "view"}
for _method in (*CONVERSIONS, "__iter__", *(name for name in dir(np.ndarray) if not name.startswith("_"))):
    if _method not in _FOLLOWED and callable(getattr(np.ndarray, _method)):
        _refuse(_method)
