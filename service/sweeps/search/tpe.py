"""The tree-structured Parzen estimator (Bergstra et al. 2011) of Optuna, as a pure function of the previous trials.

An Optuna study is built in memory for each proposal, with a generator seeded by (sweep seed, trial). So a proposal
depends only on database rows, no matter which process computes it or how often.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from service.sweeps.schema import Range
from service.sweeps.search.space import values_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class Past(NamedTuple):
    """An earlier trial."""

    settings: Mapping[str, Any]
    value: float | None
    is_finished: bool


def suggest(
    space: Mapping[str, Range], history: Sequence[Past], *, goal: Literal["minimize", "maximize"], seed: int
) -> dict[str, Any]:
    """The settings of the next trial. Trials without a result count as bad, so that parallel trials differ."""
    import optuna  # imported here, because only the scheduler needs it, and only for TPE

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {pointer: _distribution(span) for pointer, span in space.items()}
    digest = hashlib.sha256(f"{seed}:{len(history)}".encode()).digest()
    sampler = optuna.samplers.TPESampler(
        seed=int.from_bytes(digest[:4], "big"), n_startup_trials=0, constant_liar=True, multivariate=True
    )
    study = optuna.create_study(direction=goal, sampler=sampler)
    finite = [item.value for item in history if item.value is not None]
    worst = (min if goal == "maximize" else max)(finite, default=0.0)
    for item in history:
        state = optuna.trial.TrialState.COMPLETE if item.is_finished else optuna.trial.TrialState.RUNNING
        study.add_trial(
            optuna.trial.create_trial(
                params={pointer: _to_optuna(space[pointer], value) for pointer, value in item.settings.items()},
                distributions=distributions,
                state=state,
                value=(worst if item.value is None else item.value) if item.is_finished else None,
            )
        )
    trial = study.ask(distributions)
    return {pointer: _from_optuna(span, trial.params[pointer]) for pointer, span in space.items()}


def _distribution(span: Range) -> BaseDistribution:
    from optuna import distributions

    if span.choice is not None:  # by index, because Optuna compares choices, and 1 == True
        return distributions.CategoricalDistribution(list(range(len(span.choice))))
    values = values_of(span)
    if values is not None:
        return distributions.IntDistribution(0, len(values) - 1)
    low, high = span.floats or span.log or (0.0, 0.0)
    return distributions.FloatDistribution(low, high, log=span.log is not None)


def _to_optuna(span: Range, value: Any) -> Any:
    values = values_of(span)
    if values is None:
        return value
    if isinstance(values, range):
        return values.index(value)
    if span.floats is not None:  # in ascending order; the first of equal values, which rounding may produce
        return bisect_left(values, value)
    return next(place for place, other in enumerate(values) if (type(other), other) == (type(value), value))


def _from_optuna(span: Range, found: Any) -> Any:
    values = values_of(span)
    return float(f"{found:.6g}") if values is None else values[found]
