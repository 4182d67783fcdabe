"""The best trial of a sweep, and whether it is better than the others by more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.schema.metrics import Goal
from service.storage.sweep_tables import Sweep, SweepTrial
from service.sweeps import queries
from service.sweeps.results.comparison import IT, ComparedJob, Group, compare, contains_zero
from service.sweeps.schema import OverSeeds
from service.wording import listed

_MAX_COMPARED_TRIALS: Final = 100
_MAX_NAMED_TRIALS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BestTrial:
    """The best trial of a sweep among those with a value of the same rung."""

    trial: int
    label: str
    """``Trial 3 (learning_rate 0.03)``."""
    epoch: int | None
    """Of the rung; ``None`` without halving."""
    others: int
    """Number of the other trials."""
    not_distinguishable: Sequence[int] | None
    """Those of the next ``_MAX_COMPARED_TRIALS`` for which the interval of the difference contains 0; ``None``:
    unknown."""
    why_unknown: str | None
    lead: str | None = None
    """The comparison with the next one as a sentence."""

    @property
    def sentence(self) -> str | None:
        """The result as a sentence; ``None`` if there is nothing to add to the number of the trial."""
        rung = "" if self.epoch is None else f" of those trained to epoch {self.epoch}"
        if not self.others:
            return f"{self.label} is the only one trained to epoch {self.epoch}." if self.epoch else None
        best = f"{self.label} is the best{rung}"
        if self.why_unknown:
            return f"{best}. Whether it is by more than chance is unknown: {self.why_unknown}."
        if self.not_distinguishable:
            names = [str(trial) for trial in self.not_distinguishable]
            more = [f"{len(names) - _MAX_NAMED_TRIALS} more"] if len(names) > _MAX_NAMED_TRIALS else []
            noun = "trial" if len(names) == 1 else "trials"
            best += f", but not distinguishable from {noun} {listed([*names[:_MAX_NAMED_TRIALS], *more])}"
        return f"{best}. {self.lead}" if self.lead else f"{best}."


def best_trial(session: Session, sweep: Sweep) -> BestTrial | None:
    """The best trial so far, compared with the others of its rung by the values on which the sweep decides."""
    row = session.get(SweepTrial, (sweep.id, sweep.best_trial)) if sweep.best_trial is not None else None
    if row is None:
        return None
    resolved = sweep.resolved
    metric, maximize = resolved["objective"]["metric"], resolved["objective"]["goal"] == Goal.MAXIMIZE
    rung = queries.TrialView(row, {}, metric).value_rung
    of_rung = [SweepTrial.sweep_id == sweep.id, SweepTrial.value.is_not(None), queries.value_rung() == rung]
    others = (session.scalar(select(func.count()).where(*of_rung)) or 1) - 1
    unknown = None
    if len(resolved["seeds"]) == 1:
        unknown = "with one seed each, the variation between seeds is not measured"
    elif resolved["objective"]["over_seeds"] != OverSeeds.MEAN:
        unknown = f"intervals are those of means, and trials are ranked by the {resolved['objective']['over_seeds']}"
    alike, lead = None, None
    if unknown is None:
        next_trials = session.scalars(
            select(SweepTrial)
            .where(*of_rung, SweepTrial.trial != row.trial)
            .order_by(SweepTrial.value.desc() if maximize else SweepTrial.value.asc(), SweepTrial.trial)
            .limit(_MAX_COMPARED_TRIALS)
        )
        best = replace(_group_of(row), label=IT)
        compared = {other.trial: compare(metric, _group_of(other), best) for other in next_trials}
        alike = [trial for trial, result in compared.items() if contains_zero(result)]
        lead = next((_capital(result.sentence) for result in compared.values()), None)
    epoch = resolved["rungs"][rung] if len(resolved["rungs"]) > 1 else None
    return BestTrial(
        trial=row.trial,
        label=_capital(_group_of(row).label),
        epoch=epoch,
        others=others,
        not_distinguishable=alike,
        why_unknown=unknown if others else None,
        lead=lead,
    )


def _group_of(row: SweepTrial) -> Group:
    text = queries.settings_text(row.settings)
    return Group(
        label=f"trial {row.trial}" + (f" ({text})" if text else ""),
        jobs=[ComparedJob(job="", seed=int(seed), value=value) for seed, value in row.values.items()],
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
