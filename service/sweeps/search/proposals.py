"""The settings of a sweep's trials: known in advance for grid and random search, computed from results for TPE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.storage.sweep_tables import Sweep, SweepTrial
from service.sweeps.schema import Range, SearchName
from service.sweeps.search import space, tpe
from service.sweeps.search.space import EPOCHS

Suggestions = Mapping[int, dict[str, Any]]
"""Settings of trials that were computed before the transaction."""

STARTUP: Final = 10
"""Number of the first TPE trials, which are drawn at random."""


def ranges_of(resolved: Mapping[str, Any]) -> dict[str, Range]:
    """The space of a resolved sweep."""
    return {pointer: Range.model_validate(span) for pointer, span in resolved["space"].items()}


def settings(sweep: Sweep, trial: int) -> dict[str, Any] | None:
    """The settings of a trial; ``None`` if they depend on results."""
    if depends_on_results(sweep, trial):
        return None
    search, spans = sweep.resolved["search"], ranges_of(sweep.resolved)
    match SearchName(search["name"]):
        case SearchName.GRID:
            return space.grid_settings(spans, trial)
        case _:
            return space.random_settings(spans, search["seed"], trial)


def depends_on_results(sweep: Sweep, trial: int) -> bool:
    """Whether the settings of a trial must be suggested."""
    return sweep.resolved["search"]["name"] == SearchName.TPE and trial >= STARTUP


def suggest(session: Session, sweep: Sweep) -> Suggestions:
    """The settings of the next trial, which depend on results. This may take seconds."""
    trial = sweep.state["proposed"]
    rows = session.scalars(
        select(SweepTrial).where(SweepTrial.sweep_id == sweep.id, SweepTrial.trial < trial).order_by(SweepTrial.trial)
    )
    finished = {trial for results in sweep.state["results"] for trial, _ in results}
    history = [tpe.Past(row.settings, row.value, row.trial in finished) for row in rows]
    goal = sweep.resolved["objective"]["goal"]
    return {trial: tpe.suggest(ranges_of(sweep.resolved), history, goal=goal, seed=sweep.resolved["search"]["seed"])}


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
