"""How long the trials of a sweep train, as far as it is known before they start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.sweeps.schema import Range, SearchName
from service.sweeps.search import space
from service.sweeps.search.proposals import STARTUP
from service.sweeps.search.space import EPOCHS


def of_first_trial(spans: Mapping[str, Range], search: SearchName, seed: int, *, base: int) -> int:
    """The epochs of the first trial; ``base`` are those of the shared spec."""
    return next(iter(_known(spans, search, seed, 1)), base)


def max_total_epochs(spans: Mapping[str, Range], search: SearchName, seed: int, count: int, *, base: int) -> int:
    """Maximum number of epochs of ``count`` trials with one seed; ``base`` are the epochs of the shared spec."""
    if EPOCHS not in spans:
        return count * base
    if search is SearchName.GRID:  # each value is in equally many combinations
        values = _whole(space.values_of(spans[EPOCHS]) or ())
        return sum(values) * count // max(1, len(values))
    known = _known(spans, search, seed, count)
    longest = max(_whole(list(space.bounds_of(spans[EPOCHS]).values())), default=base)
    return sum(known) + (count - len(known)) * longest


def _known(spans: Mapping[str, Range], search: SearchName, seed: int, count: int) -> list[int]:
    """The epochs of those of the first trials whose settings do not depend on results."""
    if EPOCHS not in spans:
        return []
    if search is SearchName.GRID:
        return _whole((space.values_of(spans[EPOCHS]) or ())[:1])
    known = min(count, STARTUP) if search is SearchName.TPE else count
    drawn = {EPOCHS: spans[EPOCHS]}
    return _whole([space.random_settings(drawn, seed, trial)[EPOCHS] for trial in range(known)])


def _whole(values: Sequence[Any]) -> list[int]:
    """The values that can be a number of epochs."""
    return [value for value in values if isinstance(value, int) and not isinstance(value, bool)]


__all__ = ["max_total_epochs", "of_first_trial"]
