"""Makes a life that went wrong shorter: fewer faults, fewer users' wishes, less delay, as long as the same invariant is
violated."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

_FIRST_CHUNK: Final = 256


def shrink(
    choices: Sequence[int],
    still_fails: Callable[[Sequence[int]], Sequence[int] | None],
    *,
    seconds: float,
    clock: Callable[[], float] = time.process_time,
) -> Sequence[int]:
    """A shorter and duller tape that fails in the same way.

    Args:
        choices: of the life that failed.
        still_fails: repeats a life; returns the choices that it made, if it fails in the same way.
        seconds: of processor time, after which the best tape so far is returned.
    """
    end = clock() + seconds
    best = _rstripped(choices)
    size = min(_FIRST_CHUNK, max(1, len(best) // 2))
    while size and clock() < end:
        has_changed = False
        for change in (_deleted, _zeroed):
            start = len(best) - size
            while start > -size and clock() < end:
                candidate = change(best, max(0, start), size)
                if candidate != best and (made := still_fails(candidate)) is not None:
                    shorter = _rstripped(made)
                    if (len(shorter), sum(shorter)) < (len(best), sum(best)):
                        best, has_changed = shorter, True
                start -= size
        if not has_changed:
            size //= 2
    return best


def _deleted(choices: Sequence[int], start: int, size: int) -> list[int]:
    return [*choices[:start], *choices[start + size :]]


def _zeroed(choices: Sequence[int], start: int, size: int) -> list[int]:
    return [*choices[:start], *([0] * len(choices[start : start + size])), *choices[start + size :]]


def _rstripped(choices: Sequence[int]) -> list[int]:
    """Without the zeros at the end, which a tape has anyway."""
    end = len(choices)
    while end and choices[end - 1] == 0:
        end -= 1
    return list(choices[:end])
