"""The tape of a life: every choice, in order, as a small integer. A seed makes a tape, and a tape repeats a life."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

_MAX_GAP: Final = 1 << 20


class Tape:
    """Choices that are drawn from a seed and recorded, or repeated from a recording.

    Zero is always the dullest choice: no fault, no delay, the first of the alternatives. Behind the end of a
    recording everything is zero, so a recording may be cut anywhere.

    Args:
        seed: of the choices.
        recorded: repeat these instead.
    """

    def __init__(self, seed: int = 0, recorded: Sequence[int] | None = None) -> None:
        self._random = random.Random(seed)
        self._recorded = recorded
        self._position = 0
        self.choices: list[int] = []

    def draw(self, count: int) -> int:
        """A number from 0 to ``count - 1``."""
        return self._note(int(self._random.random() * count) if self._recorded is None else self._next(count - 1))

    def chance(self, probability: float) -> bool:
        """Whether something rare happens."""
        if self._recorded is None:
            return bool(self._note(int(self._random.random() < probability)))
        return bool(self._note(self._next(1)))

    def gap(self, mean: float) -> int:
        """How many steps pass before the next fault, about ``mean``; 0: there is none."""
        if self._recorded is None:
            return self._note(min(1 + int(self._random.expovariate(1 / mean)), _MAX_GAP))
        return self._note(self._next(_MAX_GAP))

    def _next(self, highest: int) -> int:
        assert self._recorded is not None
        value = self._recorded[self._position] if self._position < len(self._recorded) else 0
        self._position += 1
        return min(value, highest)

    def _note(self, value: int) -> int:
        self.choices.append(value)
        return value
