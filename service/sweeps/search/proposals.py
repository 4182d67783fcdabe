"""The settings of a sweep's trials: known in advance for grid and random search, computed from results for TPE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.storage.sweep_tables import Sweep, SweepTrial
from service.sweeps.schema import Range, SearchName
from service.sweeps.search import space, tpe

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
