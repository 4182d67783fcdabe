"""Enumerations that database and API share: states of a job, the actions that each permits, kinds of datasets."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL: Final = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})


class ListedStatus(StrEnum):
    """The states by which jobs are listed and counted: a cancelled job that its sweep stopped is ``stopped``."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    CANCELLED = "cancelled"


class Action(StrEnum):
    """The actions of users on a job."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    FORK = "fork"
    REPRODUCE = "reproduce"
    DELETE = "delete"


class Request(StrEnum):
    """A request to a running job; the worker carries it out after the current batch."""

    CANCEL = "cancel"
    PAUSE = "pause"
    PREEMPT = "preempt"
    """Of the scheduler: make room for an urgent job, and be queued."""
    BUDGET = "budget"
    """Of the training itself: its budget is spent. It is never stored."""


CANCELLED: Final = "cancelled"
"""Stored as the error code of a trial's job that a user cancelled, to tell it from one that its sweep stopped. It is
not the error of a job that failed, and is not shown as one."""


class JobKind(StrEnum):
    """What a job does: it trains one of the kinds of models, or predicts with one."""

    CLASSIFIER = "classifier"
    REGRESSOR = "regressor"
    GAN = "gan"
    PREDICTION = "prediction"


class Kind(StrEnum):
    """What to train."""

    CLASSIFIER = "classifier"
    REGRESSOR = "regressor"
    GAN = "gan"


class ErrorCode(StrEnum):
    """Why a job failed."""

    DIVERGED = "diverged"
    DATASET_UNAVAILABLE = "dataset_unavailable"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_LOST = "worker_lost"
    STORAGE = "storage"
    STORAGE_QUOTA = "storage_quota"
    INTERNAL = "internal"
    NOT_COMPARABLE = "not_comparable"
    MODEL_UNAVAILABLE = "model_unavailable"
    """The checkpoint of a prediction was deleted, or does not fit the data."""


class Reason(StrEnum):
    """Why a job is queued or paused again, other than by its user."""

    RELEASED = "released"
    """Its worker stopped or was drained."""
    LOST = "lost"
    """Its worker was lost."""
    PREEMPTED = "preempted"
    """An urgent job took its slot."""
    PAUSED_BY_SWEEP = "paused_by_sweep"
    BUDGET = "budget"
    """It has used the CPU time of its budget."""
    STORAGE = "storage"
    """Its machine cannot store or read files."""
    MEMORY = "memory"
    """Other processes use the memory that it needs."""


class MachineFaultReason(StrEnum):
    """Why a worker claims no jobs, and has released one: its machine cannot do what the job needs."""

    STORE = "store"
    """It cannot store or read files of jobs, or has another folder than the database knows."""
    DATASET = "dataset"
    """It cannot store the dataset."""
    MEMORY = "memory"
    """Other processes use the memory that the job needs."""

    @property
    def of_job(self) -> Reason:
        """Why the job is queued again, in its events."""
        return Reason.MEMORY if self is MachineFaultReason.MEMORY else Reason.STORAGE


class Drain(StrEnum):
    """What a worker that claims no more jobs does with those that it runs."""

    RELEASE = "release"
    """Another worker continues them."""
    FINISH = "finish"


class SweepStatus(StrEnum):
    """The state of a sweep."""

    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


SWEEP_ENDED: Final = frozenset({SweepStatus.SUCCEEDED, SweepStatus.FAILED, SweepStatus.CANCELLED})


class SweepAction(StrEnum):
    """What a user can do with a sweep."""

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
    """The state of a sweep's trial, as of the sweep's latest decision."""

    RUNNING = "running"
    WAITING = "waiting"
    """At a rung, for a decision."""
    STOPPED = "stopped"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class DatasetKind(StrEnum):
    """The kind of examples in a dataset."""

    IMAGES = "images"
    TABLE = "table"


class Task(StrEnum):
    """What a network learns from a dataset."""

    CLASSIFICATION = "classification"
    """To tell classes apart."""
    REGRESSION = "regression"
    """To predict a number from the other columns of a table."""

    @classmethod
    def of(cls, kind: DatasetKind, classes: int) -> Task:
        """That of a dataset: a table without classes has a number as target."""
        return cls.REGRESSION if kind is DatasetKind.TABLE and not classes else cls.CLASSIFICATION


class FindingCode(StrEnum):
    """Training failures that diagnosis recognizes; also the error code of a job that stopped on one."""

    MODE_COLLAPSE = "mode_collapse"
    DISCRIMINATOR_WINS = "discriminator_wins"
    VANISHING_GRADIENT = "vanishing_gradient"
    OVERFITTING = "overfitting"
    DIVERGING = "diverging"
    DEAD_UNITS = "dead_units"
    SATURATION = "saturation"
    LEAK = "leak"


class Severity(StrEnum):
    """The severity of a finding: the result suffers (warning), or the training fails (error)."""

    WARNING = "warning"
    ERROR = "error"


_NOT_RETRYABLE: Final = frozenset({ErrorCode.DIVERGED.value, *(code.value for code in FindingCode)})
"""Errors of the training itself, which a retry would repeat with the same bits."""

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
    """The actions that are permitted in a state, in the order in which a page shows them.

    A pending request cannot be repeated. A job that diverged, or stopped on a finding, cannot be retried: the same bits
    would fail again. A fork needs a finished epoch, and is possible in any state.
    """
    allowed = set(_ACTIONS[status])
    match requested:
        case Request.CANCEL:
            allowed = set()
        case Request.PAUSE:
            allowed = {Action.CANCEL}
        case _:
            pass
    if error_code in _NOT_RETRYABLE:
        allowed.discard(Action.RETRY)
    if epoch:
        allowed.add(Action.FORK)
    return tuple(action for action in Action if action in allowed)
