"""Tensor: an ``np.ndarray`` whose operations a running tape can record.

NumPy calls ``__array_ufunc__`` for ufuncs and operators, and ``__array_function__`` for its other functions. Outside a
tape, both behave like NumPy. Inside a tape, if an input depends on a watched tensor, they look up the primitive in the
tables of :mod:`engine.autograd.numpy_dispatch`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from engine.autograd.graph import Node, running
from engine.autograd.numpy_dispatch import (
    CONVERSIONS,
    FUNCTIONS,
    METHODS,
    NO_GRADIENT,
    REDUCTIONS,
    UFUNCS,
    WRITERS,
    no_gradient,
)
from engine.autograd.tracing import computing, is_tracing, refuse_in_trace
from engine.errors import GradientError

__all__ = ["Tensor"]


class Tensor(np.ndarray[Any, Any]):
    """An array whose operations a :class:`~engine.autograd.tape.GradientTape` can record.

    ``np.asarray(tensor)`` leaves the tape: it is a plain array on the same memory, which is not tracked.

    Args:
        data: anything array-like. An array shares its memory and keeps its dtype; Python floats become float32.
        watch: record what is computed from this tensor inside a tape. Only float32 and float64, because in float16, a
            mean over 70,000 elements has the gradient 0, and Adam divides by 0.
        dtype: overrides the dtype of ``data``.

    Raises:
        GradientError: ``watch`` with a dtype that has no gradients; or a running tape tracks ``data``.
    """

    # Class-level default, so that views and results are created without a node, at no cost.
    _node: Node | None = None
    # The number of tapes that need it unchanged.
    _locks: int = 0

    def __new__(cls, data: ArrayLike, watch: bool = False, dtype: DTypeLike | None = None) -> Self:
        """Create a tensor; see the class for the arguments."""
        if is_tracked((data,)):
            raise no_gradient("Tensor(...) of a tensor on a tape")
        array = np.asarray(data, dtype)
        if dtype is None and array.dtype == np.float64 and not hasattr(data, "dtype"):
            array = array.astype(np.float32)
        tensor = array.view(cls)
        if watch:
            if not has_gradients(array.dtype):
                raise GradientError(
                    f"cannot watch a tensor of dtype {array.dtype}: only float32 and float64 have gradients"
                )
            tensor._node = Node(leaf=True)
        return tensor

    @property
    def watched(self) -> bool:
        """Whether this tensor was made with ``watch=True``."""
        return self._node is not None and self._node.leaf

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        out = kwargs.get("out")
        if out is not None:
            for target in out:
                refuse_write(target, ufunc.__name__)
        if method == "at":
            refuse_write(inputs[0], f"{ufunc.__name__}.at")
        if is_tracked(inputs) and ufunc not in NO_GRADIENT:
            table = UFUNCS if method == "__call__" else REDUCTIONS if method == "reduce" else {}
            primitive = table.get(ufunc)
            name = f"np.{ufunc.__name__}" if method == "__call__" else f"np.{ufunc.__name__}.{method}"
            if primitive is None:
                raise no_gradient(name)
            if out is not None:
                raise GradientError(f"{name}: out= cannot be recorded; use the value it returns", operation=name)
            if method == "__call__" and kwargs:
                raise GradientError(f"{name} has no gradient with {', '.join(kwargs)}=", operation=name)
            if method == "reduce":
                kwargs.setdefault("axis", 0)  # a ufunc's reduce and np.sum disagree about the default
            return _record(primitive, name, inputs, kwargs)
        if out is not None:
            kwargs["out"] = tuple(map(untracked, out))
        if "where" in kwargs:
            kwargs["where"] = untracked(kwargs["where"])
        result = getattr(ufunc, method)(*map(untracked, inputs), **kwargs)
        if out is not None:
            return out[0] if len(out) == 1 else out
        return tuple(map(wrap, result)) if isinstance(result, tuple) else wrap(result)

    def __array_function__(self, func: Callable[..., Any], types: Iterable[type], args: Any, kwargs: Any) -> Any:
        name = f"{func.__module__.replace('numpy', 'np', 1)}.{func.__name__}"
        if func in WRITERS:
            refuse_write(args[0] if args else kwargs.get(WRITERS[func]), func.__name__)
            refuse_tracked((*args, *kwargs.values()), name)
        if is_tracked(args) or is_tracked(kwargs.values()):
            if func in WRITERS or func in NO_GRADIENT:
                return func(*untracked_tree(args), **untracked_tree(kwargs))
            primitive = FUNCTIONS.get(func)
            if primitive is None:
                raise no_gradient(name)
            return _record(primitive, name, args, kwargs)
        if is_tracing():
            return wrap(func(*untracked_tree(args), **untracked_tree(kwargs)))
        return super().__array_function__(func, cast(Any, types), args, kwargs)

    @property
    def T(self) -> Any:  # noqa: N802 - NumPy's name
        """The transpose; recorded like any other view."""
        return self.transpose()

    @property
    def mT(self) -> Any:  # noqa: N802 - NumPy's name
        """The matrix transpose: the last two axes swapped."""
        return self.swapaxes(-1, -2)

    def view(self, *args: Any, **kwargs: Any) -> Any:
        """As in NumPy; on a tape, only ``view(np.ndarray)`` is allowed, which leaves the tape."""
        if args != (np.ndarray,) and is_tracked((self,)):
            raise no_gradient("ndarray.view")
        return super().view(*args, **kwargs)

    @property
    def flat(self) -> Any:
        """As in NumPy, but an error while a tape tracks the tensor, because the iterator bypasses the tape."""
        if is_tracked((self,)):
            raise no_gradient("ndarray.flat")
        return super().flat

    @flat.setter
    def flat(self, value: Any) -> None:
        refuse_write(self, "flat")
        refuse_tracked((value,), "ndarray.flat")
        np.asarray(self).flat[:] = value

    @property
    def real(self) -> Any:
        """As in NumPy."""
        return super().real

    @real.setter
    def real(self, value: Any) -> None:
        self[...] = value

    def __deepcopy__(self, memo: dict[int, Any] | None) -> Self:
        """A copy that is watched if this tensor is: a copied model can be trained."""
        self._refuse_to_leave("copy.deepcopy")
        return type(self)(np.array(self), watch=self.watched)

    def __copy__(self) -> Any:
        """Like :func:`copy.deepcopy`; on a tape that tracks this tensor, a recorded copy."""
        return self.copy() if is_tracked((self,)) else self.__deepcopy__(None)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Support for pickling between processes: the elements, and whether the tensor is watched."""
        self._refuse_to_leave("pickle")
        return type(self), (np.array(self), self.watched)

    def _refuse_to_leave(self, name: str) -> None:
        refuse_in_trace(name)
        if self._node is not None and not self._node.leaf and is_tracked((self,)):
            raise no_gradient(name)

    def __repr__(self) -> str:
        body = np.array2string(np.asarray(self), separator=", ", prefix="Tensor(")
        # float32 is the default of Tensor([...]), so it is not shown.
        return f"Tensor({body})" if self.dtype == np.float32 else f"Tensor({body}, dtype={self.dtype})"

    def __str__(self) -> str:
        return str(np.asarray(self))

    def __format__(self, spec: str) -> str:
        return format(self.item() if self.ndim == 0 else np.asarray(self), spec)


def has_gradients(dtype: np.dtype[Any]) -> bool:
    """Whether tensors of this dtype can be on a tape."""
    return dtype.kind == "f" and dtype.itemsize >= 4


def is_tracked(values: Iterable[Any]) -> bool:
    """Whether a running tape tracks one of ``values`` (or an item of a sequence)."""
    recorder = running.recorder
    if recorder is None:
        return False
    for value in values:
        if isinstance(value, Tensor):
            node = value._node
            if node is not None and (node.leaf or node.tape is recorder.reference):
                return True
        elif isinstance(value, (list, tuple)) and is_tracked(value):
            return True
    return False


def untracked(value: Any) -> Any:
    """The plain array of a tensor, without a copy; other values unchanged."""
    return np.ndarray.view(value, computing.array_class) if isinstance(value, Tensor) else value


def tree_map(value: Any, kind: type | tuple[type, ...], function: Callable[[Any], Any]) -> Any:
    """``value`` with ``function`` applied to all instances of ``kind`` in nested tuples, lists and dicts."""
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, (tuple, list)):
        return type(value)([tree_map(item, kind, function) for item in value])
    return {key: tree_map(item, kind, function) for key, item in value.items()} if isinstance(value, dict) else value


def untracked_tree(value: Any) -> Any:
    """Like :func:`untracked`, through nested lists, tuples and dicts."""
    return tree_map(value, Tensor, untracked)


def snapshot(value: Any) -> Any:
    """A copy of an option or index for a VJP to keep, because the caller may change the original.

    Copies arrays, also in lists, but not traced arrays (:mod:`engine.replay`), which are read-only. Outside a tape,
    nothing is copied.
    """
    if running.recorder is None:
        return untracked_tree(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map(snapshot, value))
    if isinstance(value, dict):
        return {key: snapshot(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        array = untracked(value)
        return array.copy() if type(array) is np.ndarray else array
    return copy.copy(value)


def wrap(value: Any) -> Any:
    """Arrays and NumPy scalars as tensors; other values unchanged."""
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value).view(Tensor)
    return value


def refuse_write(target: Any, operation: str) -> None:
    """Raise if writing into ``target`` would falsify a gradient that a tape can still compute.

    NumPy refuses most of these writes, too; this error also names the remedy, and covers earlier views.

    Raises:
        GradientError: a tape holds a record of ``target``, or of a tensor of which it is a view; or that tensor is
            watched, and a tape is running.
    """
    tensor = target
    while isinstance(tensor, Tensor):
        if tensor._locks:
            raise GradientError(
                f"{operation}: in-place write to a tensor of shape {target.shape} that a tape has recorded; "
                "make a new tensor (y = y + 1, not y += 1), or take the gradient first; a persistent tape holds it "
                "until it is deleted (del tape)",
                operation=operation,
            )
        if tensor.watched and running.recorder is not None:
            raise GradientError(
                f"{operation}: in-place write to a watched tensor of shape {target.shape} while a tape is running, "
                "which would not record it; write before or after the with block",
                operation=operation,
            )
        tensor = tensor.base


def refuse_tracked(values: Iterable[Any], operation: str) -> None:
    """Raise before tracked values are written into an array, where the tape would lose track of them.

    Raises:
        GradientError: one of ``values`` is tracked.
    """
    if is_tracked(values):
        raise GradientError(
            f"{operation}: a tape cannot track values written into an array; join them with np.stack, np.concatenate "
            "or np.where, or write np.asarray(tensor) if no gradient should flow through it",
            operation=operation,
        )


def _record(primitive: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Any:
    try:
        return primitive(*args, **kwargs)
    except TypeError as error:
        # Python's message for a call with an unsupported option, such as dtype= or where=.
        if "unexpected keyword argument" in str(error) or "positional argument" in str(error):
            raise GradientError(f"{name} has no gradient when called like this: {error}", operation=name) from error
        raise


# NumPy's protocols do not cover methods, so these are overridden.


def _override(*names: str) -> Callable[[Callable[[str, Any], Any]], None]:
    """A decorator of a function that makes the new method from the name and the original one."""

    def apply(make: Callable[[str, Any], Any]) -> None:
        for name in names:
            original = getattr(Tensor, name)
            setattr(Tensor, name, functools.wraps(original)(make(name, original)))

    return apply


# Every method of ndarray that returns an array computed from the elements either has an entry in METHODS, or
# raises an error on a tape. Otherwise gradients would be wrong without notice.
@_override(
    *("__getitem__", "astype", "choose", "clip", "compress", "copy", "cumprod", "cumsum"),
    *("diagonal", "dot", "flatten", "max", "mean", "min", "prod", "ravel", "repeat", "reshape", "squeeze", "std"),
    *("sum", "swapaxes", "take", "trace", "transpose", "var"),
)
def _follow(name: str, original: Any) -> Any:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not (is_tracked((self, *args)) or is_tracked(kwargs.values())):
            if is_tracing():  # by the methods of traced arrays, which are part of the trace or raise an error
                return wrap(getattr(untracked(self), name)(*untracked_tree(args), **untracked_tree(kwargs)))
            return original(self, *args, **kwargs)
        function = METHODS.get(name)
        if function is None:
            raise no_gradient(f"ndarray.{name}")
        return _record(function, f"ndarray.{name}", (self, *args), kwargs)

    return method


# Methods that write into the array raise an error while a tape needs it.
@_override("__setitem__", "byteswap", "fill", "partition", "put", "resize", "setfield", "sort")
def _guard(name: str, original: Any) -> Any:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        refuse_write(self, name)
        refuse_tracked((*args, *kwargs.values()), f"ndarray.{name}")
        return original(self, *args, **kwargs)

    return method


# A replay would repeat the results of these methods as constants.
@_override(
    *CONVERSIONS,
    *("all", "any", "argmax", "argmin", "argpartition", "argsort", "conj", "conjugate", "dump", "dumps", "getfield"),
    *("item", "nonzero", "round", "searchsorted", "tobytes", "tofile", "tolist"),
)
def _refuse_in_trace(name: str, original: Any) -> Any:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        refuse_in_trace(f"ndarray.{name}")
        return original(self, *args, **kwargs)

    return method


def _guard_attribute(name: str) -> None:
    """Make the attribute ``name``, which describes the memory layout, read-only while a tape holds the tensor."""
    original = getattr(np.ndarray, name)

    def change(self: Tensor, value: Any) -> None:
        refuse_write(self, f"ndarray.{name}")
        original.__set__(self, value)

    setattr(Tensor, name, property(original.__get__, change, doc=original.__doc__))


for _name in ("dtype", "shape", "strides"):
    _guard_attribute(_name)
