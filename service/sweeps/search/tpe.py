"""The tree-structured Parzen estimator (Bergstra et al. 2011) of Optuna, as a pure function of the previous trials.

An Optuna study is built in memory for each proposal, with a generator seeded by (sweep seed, trial). So a proposal
depends only on database rows, no matter which process computes it or how often.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from service.spec.strict_json import canonical
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
    finite = [past.value for past in history if past.value is not None]
    worst = (min if goal == "maximize" else max)(finite, default=0.0)
    to_optuna = {pointer: _converter(span) for pointer, span in space.items()}
    for past in history:
        state = optuna.trial.TrialState.COMPLETE if past.is_finished else optuna.trial.TrialState.RUNNING
        study.add_trial(
            optuna.trial.create_trial(
                params={pointer: to_optuna[pointer](value) for pointer, value in past.settings.items()},
                distributions=distributions,
                state=state,
                value=(worst if past.value is None else past.value) if past.is_finished else None,
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


def _converter(span: Range) -> Callable[[Any], Any]:
    """The function that converts a value of the range to Optuna's."""
    values = values_of(span)
    if values is None:
        return lambda value: value
    if isinstance(values, range):
        return values.index
    if span.floats is not None:  # in ascending order; the first of equal values, which rounding may produce
        return partial(bisect_left, values)
    index: dict[str, int] = {}
    for position, value in enumerate(values):
        index.setdefault(canonical(value), position)
    return lambda value: index[canonical(value)]


def _from_optuna(span: Range, drawn: Any) -> Any:
    values = values_of(span)
    return float(f"{drawn:.6g}") if values is None else values[drawn]
