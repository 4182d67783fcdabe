"""Arrays that write down what is computed from them: how :mod:`engine.replay` learns the calls of a step.

A :class:`Recording` runs the real code once on :class:`Traced` arrays. NumPy tells them of every ufunc and function
(the same protocols that Tensor uses), and they keep it as a :class:`Call` with ``out=``: on which memory, into which
memory. Views compute nothing and need no call: playing the calls again on the same memory does the same work.

What cannot be written down this way is refused, never guessed: a value that leaves for Python (``float(x)``), memory
that no call has filled, a method that passes by the protocols, a write to memory that outlives the recording.
"""

from __future__ import annotations

import operator
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from engine.autograd.graph import Array, running
from engine.autograd.numpy_dispatch import WRITERS
from engine.autograd.tensor import Tensor
from engine.errors import EngineError
from engine.memory import address


class NotReplayableError(EngineError):
    """This computation cannot be written down as calls on fixed memory; the plain tape can still run it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an array lay: in which buffer, how far from its beginning, and how it was read."""

    buffer: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Call:
    """``function(*args, **options)``, which writes into ``out``, one of the arguments or options.

    Arguments are places for arrays that calls fill, and the arrays themselves for resident ones.

    Attributes:
        elementwise: each element of ``out`` depends on the same element of the arguments only, so that an argument
            that nobody needs any more may be overwritten.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]
    out: Any
    elementwise: bool = False


class Recording:
    """The calls of one run of a function.

    It keeps no array that a call fills: the run frees its memory as it would without being recorded.

    Args:
        resident: arrays whose memory outlives the recording: parameters and inputs.
        changing: those of them that may be written to.

    Attributes:
        sizes: bytes of each buffer: memory that calls fill.
    """

    def __init__(self, resident: Iterable[Array], changing: Iterable[Array] = ()) -> None:
        self.calls: list[Call] = []
        self.sizes: list[int] = []
        # Owners of all known memory by their ids: resident ones, kept alive here, and the numbers of buffers, which
        # are forgotten when their owners die. So ids are unique.
        self._resident = {id(array): array for array in map(owner, resident)}
        self._changing = {id(array) for array in map(owner, changing)}
        self._buffers: dict[int, int] = {}
        self._watchers: dict[int, weakref.ref[Array]] = {}

    def __enter__(self) -> Self:
        """Record what this thread computes from traced arrays, and let primitives compute on such."""
        _current.recording, running.array_class = self, Traced
        return self

    def __exit__(self, *error: object) -> None:
        _current.recording, running.array_class = None, np.ndarray

    def knows(self, array: Array) -> bool:
        """Whether the memory of ``array`` is resident or filled by a call."""
        key = id(owner(array))
        return key in self._buffers or key in self._resident

    def place(self, array: Array) -> Any:
        """Where ``array`` lies, or the array itself if it is resident or a constant.

        Raises:
            NotReplayableError: its memory is neither resident nor filled by a call before.
        """
        whole = owner(array)
        number = self._buffers.get(id(whole))
        if number is not None:
            return Place(number, address(array) - address(whole), array.shape, array.strides, array.dtype)
        # What has no axes is taken for a constant, such as the 1 that a backward pass starts from. A value that left
        # through np.asarray can look like one: that is why a program is compared with the plain tape before its use.
        if array.ndim and id(whole) not in self._resident:
            raise NotReplayableError(f"an array of unknown origin {array.shape}")
        return array

    def keep(self, result: Any) -> Traced:
        """``result``, which a call has filled, as a traced array with memory of its own."""
        array: Array = np.asarray(result)
        if array.base is not None:
            array = array.copy("K")
        key = id(array)
        self._buffers[key] = len(self.sizes)
        self._watchers[key] = weakref.ref(array, lambda _: self._forget(key))
        self.sizes.append(array.nbytes)
        return array.view(Traced)

    def _forget(self, key: int) -> None:
        del self._buffers[key], self._watchers[key]

    def refuse_resident(self, target: Array) -> None:
        """Raise NotReplayableError if ``target`` outlives the recording and is not one of those that may change."""
        key = id(owner(target))
        if key in self._resident and key not in self._changing:
            raise NotReplayableError(f"a write to an input or a resident array {target.shape}")

    def accept_row_numbers(self, index: Any) -> None:
        """Allow an index of known arrays and of 0, 1, 2, ...: the one constant that indexing rows needs.

        Raises:
            NotReplayableError: a mask, whose result has a shape that depends on the data, or an unknown array.
        """
        for part in arrays_in(index):
            if part.dtype == np.bool_:
                raise NotReplayableError("a mask as index: the shape of the result depends on the data")
            if not self.knows(part):
                if not np.array_equal(part, np.arange(part.size)):
                    raise NotReplayableError(f"an index of unknown origin {part.shape}")
                self._resident[id(owner(part))] = owner(part)

    def add(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        options: dict[str, Any],
        out: Array,
        elementwise: bool = False,
    ) -> None:
        """Append a call.

        Raises:
            NotReplayableError: it reads memory that is neither resident nor filled by a call before.
        """
        args, options, place = map_kind((args, options, out), np.ndarray, self.place)
        self.calls.append(Call(function, args, options, place, elementwise))

    def store(self, function: Callable[..., Any], args: Sequence[Any], options: dict[str, Any]) -> Any:
        """Run a function that has no ``out=``, and write down that its result is stored."""
        args, options = plain(tuple(args)), plain(options)
        result = function(*args, **options)
        if not isinstance(result, (np.ndarray, np.generic)):
            raise NotReplayableError(f"{_name(function)} gives {type(result).__name__}, not an array")
        if isinstance(result, np.ndarray) and self.knows(result):
            return result.view(Traced)  # a view: nothing was computed
        kept = self.keep(result)
        out = kept.view(np.ndarray)
        self.add(_store, (function, out, *args), options, out)
        return kept


class _Current(threading.local):
    recording: Recording | None = None


_current = _Current()


def is_recording() -> bool:
    """Whether a recording runs in this thread."""
    return _current.recording is not None


class Traced(np.ndarray[Any, Any]):
    """An array on the memory of the recording that runs in this thread."""

    @property
    def recording(self) -> Recording:
        """The recording that is running."""
        return _running_recording()

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(isinstance(value, Tensor) for value in inputs):
            return NotImplemented  # the tape comes first; its primitives come back here
        if ufunc.nout != 1 or method not in ("__call__", "reduce"):
            raise NotReplayableError(f"np.{ufunc.__name__}.{method} is not supported")
        function = ufunc if method == "__call__" else getattr(ufunc, method)
        (given,) = kwargs.pop("out", None) or (None,)
        inputs, kwargs = plain(inputs), plain(kwargs)
        if given is None:
            target = self.recording.keep(function(*inputs, **kwargs))
        else:
            target = given
            self.recording.refuse_resident(given)
            function(*inputs, out=plain(given), **kwargs)
        out = plain(target)
        elementwise = method == "__call__" and ufunc.signature is None and "where" not in kwargs
        self.recording.add(function, inputs, kwargs | {"out": out}, out, elementwise)
        return target

    def __array_function__(self, func: Callable[..., Any], types: Iterable[type], args: Any, kwargs: Any) -> Any:
        if func in _AS_UFUNCS:
            return super().__array_function__(func, types, args, kwargs)
        if func in (np.shape, np.ndim, np.size):
            return func(*plain(args), **plain(kwargs))
        if func is np.empty_like:  # how primitives get memory that later calls fill, in pieces
            return self.recording.keep(func(*plain(args), **plain(kwargs)))
        if func in WRITERS or "out" in kwargs:
            raise NotReplayableError(f"np.{func.__name__} with a target is not supported")
        return self.recording.store(func, args, kwargs)

    def __getitem__(self, index: Any) -> Any:
        self.recording.accept_row_numbers(index)
        return self.recording.store(operator.getitem, (self, index), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        self.recording.refuse_resident(self)
        self.recording.accept_row_numbers(index)
        target, index, value = plain((self, index, value))
        target[index] = value
        self.recording.add(operator.setitem, (target, index, value), {}, target)

    def astype(self, dtype: Any) -> Any:  # type: ignore[override]  # other options are refused by Python
        """A copy of another dtype, recorded."""
        return self._copied(np.asarray(self).astype(dtype))

    def copy(self, order: Any = "C") -> Any:
        """A copy, recorded."""
        return self._copied(np.asarray(self).copy(order))

    def reshape(self, *shape: Any, **options: Any) -> Any:
        """A view where the layout in memory allows it, else a copy, recorded."""
        return self.recording.store(np.reshape, (self, shape[0] if len(shape) == 1 else shape), options)

    def ravel(self, order: Any = "C") -> Any:
        """As :meth:`reshape` to one axis."""
        return self.recording.store(np.ravel, (self, order), {})

    def _copied(self, result: Array) -> Any:
        kept = self.recording.keep(result)
        out, source = plain((kept, self))
        self.recording.add(np.copyto, (out, source), {"casting": "unsafe"}, out)
        return kept

    @property
    def flat(self) -> Any:
        """Refused: the iterator reads and writes unseen."""
        raise NotReplayableError("ndarray.flat leaves the recording")

    def __pow__(self, other: Any, modulo: None = None) -> Any:
        # Where a traced array has no axes, the plain run may have a NumPy scalar, whose powers differ in the last bit.
        if self.ndim == 0:
            raise NotReplayableError("a power of a number")
        return super().__pow__(other)

    def __rpow__(self, other: Any, modulo: None = None) -> Any:
        if self.ndim == 0:
            raise NotReplayableError("a power of a number")
        return super().__rpow__(other)


class TracedGenerator:
    """Stands for a random generator: what is drawn from it while recording will be drawn anew by each replay."""

    def __init__(self, generator: np.random.Generator | None) -> None:
        self.generator = generator  # the one to draw from: each replay sets its own

    def __getattr__(self, distribution: str) -> Callable[..., Any]:
        if distribution in ("shuffle", "bit_generator", "spawn"):
            raise NotReplayableError(f"Generator.{distribution} cannot be recorded")

        def draw(*args: Any, **options: Any) -> Any:
            return getattr(self.generator, distribution)(*args, **options)

        def record(*args: Any, **options: Any) -> Any:
            if "out" in options:
                raise NotReplayableError(f"Generator.{distribution} with a target is not supported")
            return _running_recording().store(draw, args, options)

        return record


_AS_UFUNCS = {np.sum, np.max, np.min, np.amax, np.amin}
"""Functions that NumPy makes of a ufunc's reduce, which takes ``out=``."""


def _running_recording() -> Recording:
    if _current.recording is None:
        raise NotReplayableError("a traced array was kept from a recording that has ended")
    return _current.recording


def owner(array: Array) -> Array:
    """The array whose memory ``array`` is a view of, or itself."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def plain(value: Any) -> Any:
    """``value`` with plain arrays for traced ones, through tuples, lists and dicts."""
    return map_kind(value, np.ndarray, lambda array: np.ndarray.view(array, np.ndarray))


def arrays_in(value: Any) -> Iterator[Array]:
    """The arrays in nested tuples, lists and dicts."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from arrays_in(item)
    elif isinstance(value, dict):
        yield from arrays_in(list(value.values()))


def map_kind(value: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    """``value`` with ``function`` applied to all that is of this kind in nested tuples, lists and dicts."""
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, (tuple, list)):
        return type(value)(map_kind(item, kind, function) for item in value)
    return {key: map_kind(item, kind, function) for key, item in value.items()} if isinstance(value, dict) else value


def _store(function: Callable[..., Any], out: Array, *args: Any, **options: Any) -> None:
    out[...] = function(*args, **options)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", repr(function))


def _refuse(name: str) -> None:
    def method(self: Traced, *args: Any, **kwargs: Any) -> Any:
        raise NotReplayableError(f"ndarray.{name} leaves the recording")

    setattr(Traced, name, method)


# Methods that give a view, or come back as ufuncs, or give memory that no call fills; others could take a value away.
_FOLLOWED = {"astype", "copy", "max", "min", "ravel", "reshape", "squeeze", "sum", "swapaxes", "transpose", "view"}
_LEAVING = ("__bool__", "__complex__", "__contains__", "__float__", "__index__", "__int__", "__iter__")
for _method in (*_LEAVING, *(name for name in dir(np.ndarray) if not name.startswith("_"))):
    if _method not in _FOLLOWED and callable(getattr(np.ndarray, _method)):
        _refuse(_method)
