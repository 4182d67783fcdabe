"""Words that the database and the API share: the states of a job, what may be done in each, kinds of datasets."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL: Final = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})


class Action(StrEnum):
    """What a person may ask of a job."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    FORK = "fork"
    REPRODUCE = "reproduce"
    DELETE = "delete"


class Request(StrEnum):
    """What a person asked of a running job; the worker obeys between two batches."""

    CANCEL = "cancel"
    PAUSE = "pause"


class ErrorCode(StrEnum):
    """Why a job failed."""

    DIVERGED = "diverged"
    DATASET_UNAVAILABLE = "dataset_unavailable"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_LOST = "worker_lost"
    STORAGE = "storage"
    INTERNAL = "internal"


class SweepStatus(StrEnum):
    """Where a sweep stands."""

    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


SWEEP_ENDED: Final = frozenset({SweepStatus.SUCCEEDED, SweepStatus.FAILED, SweepStatus.CANCELLED})


class SweepAction(StrEnum):
    """What a person may ask of a sweep."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    DELETE = "delete"


SWEEP_ACTIONS: Final[dict[SweepStatus, tuple[SweepAction, ...]]] = {
    SweepStatus.RUNNING: (SweepAction.CANCEL, SweepAction.PAUSE),
    SweepStatus.PAUSED: (SweepAction.CANCEL, SweepAction.RESUME),
    **dict.fromkeys(SWEEP_ENDED, (SweepAction.DELETE,)),
}


class TrialStatus(StrEnum):
    """Where a trial of a sweep stands, as far as the sweep has taken notice."""

    RUNNING = "running"
    WAITING = "waiting"
    """At a rung, for a decision."""
    STOPPED = "stopped"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class DatasetKind(StrEnum):
    """What the examples of a dataset are."""

    IMAGES = "images"
    TABLE = "table"


class FindingCode(StrEnum):
    """What can be wrong with a training; also why a job failed that was to stop on it."""

    MODE_COLLAPSE = "mode_collapse"
    DISCRIMINATOR_WINS = "discriminator_wins"
    VANISHING_GRADIENT = "vanishing_gradient"
    OVERFITTING = "overfitting"
    DIVERGING = "diverging"
    DEAD_UNITS = "dead_units"
    SATURATION = "saturation"


class Severity(StrEnum):
    """How bad a finding is: the result suffers, or there will be none."""

    WARNING = "warning"
    ERROR = "error"


_NOT_AGAIN: Final = frozenset({ErrorCode.DIVERGED.value, *(code.value for code in FindingCode)})
"""Errors of a training itself: the same bits would end the same way."""

_ACTIONS: Final[dict[Status, tuple[Action, ...]]] = {
    Status.QUEUED: (Action.CANCEL,),
    Status.RUNNING: (Action.CANCEL, Action.PAUSE),
    Status.PAUSED: (Action.CANCEL, Action.RESUME),
    Status.SUCCEEDED: (Action.REPRODUCE, Action.DELETE),
    Status.FAILED: (Action.RETRY, Action.DELETE),
    Status.CANCELLED: (Action.DELETE,),
}


def allowed_actions(
    status: Status, *, requested: Request | None = None, error_code: str | None = None, epoch: int = 0
) -> tuple[Action, ...]:
    """What may be asked of a job in this state, in the order in which a page shows it.

    A request that waits to be obeyed is not offered again. A job that diverged, or stopped on a finding, is not
    offered a retry: the same bits would end the same way. A fork leaves the job alone: it needs a finished epoch, and
    nothing else.
    """
    offered = set(_ACTIONS[status])
    match requested:
        case Request.CANCEL:
            offered = set()
        case Request.PAUSE:
            offered = {Action.CANCEL}
        case None:
            pass
    if error_code in _NOT_AGAIN:
        offered.discard(Action.RETRY)
    if epoch:
        offered.add(Action.FORK)
    return tuple(action for action in Action if action in offered)
