"""The numbers of epochs of a sweep's trials, as far as they are known before the trials start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.sweeps.schema import Range, SearchName
from service.sweeps.search import space
from service.sweeps.search.proposals import STARTUP
from service.sweeps.search.space import EPOCHS


def of_first_trial(spans: Mapping[str, Range], search: SearchName, seed: int, *, base: int) -> int:
    """The epochs of the first trial; ``base`` are those of the shared spec."""
    return next(iter(_known_epochs(spans, search, seed, 1)), base)


def max_total_epochs(spans: Mapping[str, Range], search: SearchName, seed: int, count: int, *, base: int) -> int:
    """Maximum number of epochs of ``count`` trials with one seed; ``base`` are the epochs of the shared spec."""
    if EPOCHS not in spans:
        return count * base
    if search is SearchName.GRID:  # each value is in equally many combinations
        values = _integers(space.values_of(spans[EPOCHS]) or ())
        return sum(values) * count // max(1, len(values))
    known_epochs = _known_epochs(spans, search, seed, count)
    longest = max(_integers(list(space.bounds_of(spans[EPOCHS]).values())), default=base)
    return sum(known_epochs) + (count - len(known_epochs)) * longest


def _known_epochs(spans: Mapping[str, Range], search: SearchName, seed: int, count: int) -> list[int]:
    """The epochs of the first ``count`` trials, without those of trials whose settings depend on results."""
    if EPOCHS not in spans:
        return []
    if search is SearchName.GRID:
        return _integers((space.values_of(spans[EPOCHS]) or ())[:1])
    known_count = min(count, STARTUP) if search is SearchName.TPE else count
    span = {EPOCHS: spans[EPOCHS]}
    return _integers([space.random_settings(span, seed, trial)[EPOCHS] for trial in range(known_count)])


def _integers(values: Sequence[Any]) -> list[int]:
    """The values that can be a number of epochs."""
    return [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
