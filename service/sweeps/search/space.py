"""The search space of a sweep: pointers into a spec, their values, and random draws."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final, overload

from service.spec.strict_json import pointer_name
from service.sweeps.schema import Range

EPOCHS: Final = "/epochs"
"""The setting that determines the cost of a trial."""

_DIGITS: Final = 6
"""Significant digits of a drawn number, so that the displayed value is exactly the trained one, on every machine."""

_INDEX: Final = re.compile("0|[1-9][0-9]*")
"""An index of a JSON pointer has no leading zeros, so that each value has one pointer."""


def steps_of(pointer: str) -> list[str]:
    """The reference tokens of a JSON pointer (RFC 6901).

    Raises:
        ValueError: it is not a JSON pointer.
    """
    if not pointer.startswith("/"):
        raise ValueError("must be a JSON pointer, such as /optimizer/learning_rate")
    return [pointer_name(step) for step in pointer[1:].split("/")]


def look_up(document: Any, pointer: str) -> Any:
    """The value at a pointer.

    Raises:
        LookupError, ValueError: there is no value at the pointer, or it is invalid.
    """
    value = document
    for step in steps_of(pointer):
        value = value[int(step)] if isinstance(value, list) and _INDEX.fullmatch(step) else _member(value, step)
    return value


def _member(value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise KeyError(name)
    return value[name]


def with_settings(document: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A spec with these values at their pointers. It shares the other values with the document."""
    copied: dict[str, Any] = dict(document)
    for pointer, value in settings.items():
        *path, last = steps_of(pointer)
        node: Any = copied
        for step in path:
            if isinstance(node, list):
                node[int(step)] = copy.copy(node[int(step)])
                node = node[int(step)]
            else:
                node[step] = copy.copy(node.get(step, {}))
                node = node[step]
        if isinstance(node, list):
            node[int(last)] = value
        else:
            node[last] = value
    return copied


class _SteppedFloats(Sequence[float]):
    """Floats at equal distances in ascending order, computed when they are read: there may be a billion."""

    def __init__(self, low: float, step: float, count: int) -> None:
        self._low, self._step, self._indices = low, step, range(count)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> list[float]: ...
    def __getitem__(self, index: int | slice) -> float | list[float]:
        if isinstance(index, slice):
            return [self._value(i) for i in self._indices[index]]
        return self._value(self._indices[index])

    def _value(self, index: int) -> float:
        return _rounded(self._low + index * self._step)


def values_of(span: Range) -> Sequence[Any] | None:
    """All values of a range in order; ``None`` if there are infinitely many."""
    if span.choice is not None:
        return span.choice
    if span.integers is not None:
        low, high = span.integers
        return range(low, high + 1, int(span.step or 1))
    if span.floats is not None and span.step is not None:
        low_, high_ = span.floats
        count = math.floor((high_ - low_) / span.step + 1e-9) + 1
        return _SteppedFloats(low_, span.step, count)
    return None


def bounds_of(span: Range) -> dict[str, Any]:
    """The values that represent a range when it is checked, by their pointer relative to the range."""
    if span.choice is not None:
        return {f"choice/{index}": value for index, value in enumerate(span.choice)}
    kind = "int" if span.integers is not None else "float" if span.floats is not None else "log"
    low, high = span.integers or span.floats or span.log or (0, 0)
    bounds: dict[str, Any] = {f"{kind}/0": low, f"{kind}/1": high}
    if kind != "int" and low < high:
        bounds[kind] = draw(span, 0.382)  # a fraction, so that a field that accepts only integers rejects the range
    return bounds


def draw(span: Range, position: float) -> Any:
    """The value of a range at a position in [0, 1)."""
    values = values_of(span)
    if values is not None:
        return values[int(position * len(values))]
    if span.floats is not None:
        low, high = span.floats
        return _rounded(low + position * (high - low))
    low, high = span.log or (1.0, 1.0)
    return min(max(_rounded(math.exp(math.log(low) + position * (math.log(high) - math.log(low)))), low), high)


def random_settings(space: Mapping[str, Range], seed: int, trial: int) -> dict[str, Any]:
    """The settings of a trial in random search. Each setting is drawn independently: adding one does not change the
    others."""
    return {pointer: draw(span, Random(f"{seed}:{trial}:{pointer}").random()) for pointer, span in space.items()}  # noqa: S311


def grid_size(space: Mapping[str, Range]) -> int | None:
    """The number of combinations; ``None`` if a range has infinitely many values."""
    sizes = [None if (values := values_of(span)) is None else len(values) for span in space.values()]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def grid_settings(space: Mapping[str, Range], trial: int) -> dict[str, Any]:
    """The settings of a trial in a grid; the last setting changes fastest."""
    lists = [values_of(span) or () for span in space.values()]
    remaining = trial
    chosen = []
    for values in reversed(lists):
        remaining, index = divmod(remaining, len(values))
        chosen.append(values[index])
    return dict(zip(space, reversed(chosen), strict=True))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
