"""Trainings of different length that have their first epochs in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.spec.schema import ClassifierSpec, Constant, GanSpec, Schedule, Spec, Step
from service.spec.validation import NOT_HASHED, resolved_hash

_NOT_IN_PREFIX: Final = NOT_HASHED | {"epochs"}


def prefix_hash(resolved: Mapping[str, Any]) -> str:
    """SHA-256 over everything in a resolved spec that affects the computation, except for the number of epochs."""
    return resolved_hash(resolved, without=_NOT_IN_PREFIX)


def is_independent_of_length(spec: Spec) -> bool:
    """Whether an epoch has the same bits no matter how many follow: no schedule spans the whole run."""
    return all(isinstance(schedule, Constant | Step) for schedule in _schedules(spec))


def is_independent_of_position(spec: Spec, epoch: int) -> bool:
    """Whether an epoch's record is the same whether or not it is the last epoch.

    The last epoch always has samples and scores; other epochs have them only when they are due.
    """
    due = epoch % spec.samples.every_epochs == 0
    return due and (isinstance(spec, ClassifierSpec) or epoch % spec.health.every_epochs == 0)


def _schedules(spec: Spec) -> list[Schedule]:
    if isinstance(spec, GanSpec):
        return [network.schedule or spec.schedule for network in (spec.generator, spec.discriminator)]
    return [spec.schedule]
