"""The importance of a sweep's settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.schema.metrics import Goal
from service.statistics import mean, scale_of
from service.storage.sweep_tables import Sweep, SweepTrial
from service.sweeps.results.best_trial import best_trial
from service.sweeps.search import proposals
from service.sweeps.search.space import values_of

_BINS: Final = 4
"""Number of bins into which the values of a numeric setting are grouped to compute its importance."""
_MAX_COMPUTED: Final = 64
"""Number of sweeps whose importance a process caches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportanceItem:
    """How much a setting matters."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    setting: str
    share: float | None
    """Fraction of the objective's variance between groups of similar values."""
    best: str | None
    """The value, or the range of values, with the best mean."""
    distinguishable: bool | None
    """False: the best trial, or one not distinguishable from it, has another value than `best`. Null: unknown."""


def importance(session: Session, sweep: Sweep) -> Sequence[ImportanceItem]:
    """The importance of each setting, highest first.

    It is computed from the values at the first rung, because all trials have a value at that epoch. It is computed
    once for each event of the sweep: every result is an event.
    """
    first = {trial: value for trial, value in (sweep.state.get("results") or [[]])[0] if value is not None}
    query = select(SweepTrial.trial, SweepTrial.settings).where(SweepTrial.sweep_id == sweep.id)
    rows = session.execute(query.order_by(SweepTrial.trial)).all()
    results = [(settings, first[trial]) for trial, settings in rows if trial in first]
    maximize = sweep.resolved["objective"]["goal"] == Goal.MAXIMIZE
    importances = []
    winner = best_trial(session, sweep)
    alike = None
    if winner is not None and winner.not_distinguishable is not None:
        settings_by_trial = {row.trial: row.settings for row in rows}
        alike = [settings_by_trial[trial] for trial in (winner.trial, *winner.not_distinguishable)]
    for pointer, span in proposals.ranges_of(sweep.resolved).items():
        values = values_of(span)
        is_numeric = span.choice is None and (values is None or len(values) > _BINS)
        groups = _grouped([(settings[pointer], value) for settings, value in results], is_numeric=is_numeric)
        ratio = _correlation_ratio([_values(group) for group in groups.values()])
        best_of = max if maximize else min
        best = best_of(groups, key=lambda name: mean(_values(groups[name]))) if groups else None
        members = [setting for setting, _ in groups[best]] if best is not None else []
        clear = None if alike is None else all(settings[pointer] in members for settings in alike)
        importances.append(ImportanceItem(setting=pointer, share=ratio, best=best, distinguishable=clear))
    return sorted(importances, key=lambda item: (item.share is None, -(item.share or 0), item.setting))


def _values(group: Sequence[tuple[Any, float]]) -> list[float]:
    return [value for _, value in group]


def _grouped(pairs: Sequence[tuple[Any, float]], *, is_numeric: bool) -> dict[str, list[tuple[Any, float]]]:
    """Settings and values of trials by a text of the setting."""
    groups: dict[str, list[tuple[Any, float]]] = {}
    if not is_numeric:
        for setting, value in pairs:
            groups.setdefault(_text(setting), []).append((setting, value))
        return groups
    ordered = sorted(pairs, key=lambda pair: pair[0])
    count = min(_BINS, max(1, len(ordered) // 2))
    for index in range(count):
        bin_pairs = ordered[len(ordered) * index // count : len(ordered) * (index + 1) // count]
        if bin_pairs:
            groups.setdefault(f"{_text(bin_pairs[0][0])} to {_text(bin_pairs[-1][0])}", []).extend(bin_pairs)
    return groups


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _correlation_ratio(groups: Sequence[Sequence[float]]) -> float | None:
    values = [value for group in groups for value in group]
    scale = scale_of(values)
    if scale is None or len(values) < 4 or len(groups) < 2:
        return None
    values, groups = [value / scale for value in values], [[value / scale for value in group] for group in groups]
    centre = mean(values)
    total = math.fsum((value - centre) ** 2 for value in values)
    if total == 0:
        return None
    between = math.fsum(len(group) * (mean(group) - centre) ** 2 for group in groups)
    return min(1.0, between / total)
