"""The life of a job: its states, what a person may do in each, and nothing else."""

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


_ACTIONS: Final[dict[Status, tuple[Action, ...]]] = {
    Status.QUEUED: (Action.CANCEL,),
    Status.RUNNING: (Action.CANCEL, Action.PAUSE),
    Status.PAUSED: (Action.CANCEL, Action.RESUME),
    Status.SUCCEEDED: (Action.DELETE,),
    Status.FAILED: (Action.RETRY, Action.DELETE),
    Status.CANCELLED: (Action.DELETE,),
}


def allowed_actions(
    status: Status, *, requested: Request | None = None, error_code: str | None = None
) -> tuple[Action, ...]:
    """What may be asked of a job in this state, in the order in which a page shows it.

    A request that waits to be obeyed is not offered again. A job that diverged is not offered a retry: the
    same bits would diverge again.
    """
    actions = _ACTIONS[status]
    if requested is Request.CANCEL:
        return ()
    if requested is Request.PAUSE:
        return (Action.CANCEL,)
    if error_code == ErrorCode.DIVERGED:
        return tuple(action for action in actions if action is not Action.RETRY)
    return actions
