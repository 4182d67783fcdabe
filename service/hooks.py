"""How the kernel calls features. Each function of this module is a place in the kernel at which all features are called
in the order of their list; a feature declares what it does there in its rooms ``hooks`` and ``upkeep``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Row, Select, SQLColumnExpression
from sqlalchemy.orm import Session

from service import declarations
from service.declarations import Room
from service.runtime.settings import Settings
from service.storage.database import Database
from service.storage.tables import Job

EVERY_OWNER: Final = "*"
"""In place of an owner: all are concerned. No owner can have this id."""


class HappeningKind(StrEnum):
    """What may happen: subject and verb."""

    SWEEP_ENDED = "sweep.ended"
    ALIAS_MOVED = "alias.moved"
    WORKER_LOST = "worker.lost"
    QUOTA_EXCEEDED = "quota.exceeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """An event about an object of an owner, other than a change of a job."""

    kind: HappeningKind
    owner: str | None
    """As in ``jobs.owner``, or ``EVERY_OWNER``."""
    data: Mapping[str, Any]
    """``id``, ``url`` (a path), ``name``, ``status``, and more."""
    once: str | None = None
    """What identifies it, if several callers may tell of it."""


class JobChanged(Protocol):
    """The hook *a job changed*."""

    def __call__(self, session: Session | Connection, job: Job | Row[Any], *, reason: str) -> None:
        """Called in the transaction of the change, after its events.

        Args:
            job: the row as it is now, locked.
            reason: that of its last status event. ``changed``: its name, tags, priority or the like, not its state.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCheckpoint:
    """A checkpoint that a feature has given a name."""

    name: str
    """It means this checkpoint forever: ``digits:3``."""
    job_id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unowned:
    """Objects of a feature that may have no owner, because they were created while keys were not required."""

    name: str
    """Of one: ``model``."""
    count: Callable[[Session], int]
    adopt: Callable[[Session, str], int]
    """Gives all to an owner, and returns their number. Jobs, which it may not lock, have their owner already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What a feature does in transactions of the kernel; ``None``: nothing."""

    job_changed: JobChanged | None = None
    happened: Callable[[Session | Connection, Happening], None] | None = None
    adopted: Callable[[Session, str], None] | None = None
    before_deletion: Callable[[Session, Collection[str]], None] | None = None
    kept_epochs: Callable[[SQLColumnExpression[str]], Select[int]] | None = None
    unowned: Unowned | None = None
    resolve: Callable[[Session, str, str | None], NamedCheckpoint | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiredData:
    """Rows of a feature that are removed after a retention period."""

    name: str
    """In the result of ``tapeline gc --json``."""
    noun: str
    """In the plural, for logs and ``tapeline gc``."""
    days: Callable[[Settings], float]
    """The period; 0: forever."""
    count: Callable[[Database, float], int]
    """How many rows ``remove`` would remove after so many days."""
    remove: Callable[[Database, float], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicWork:
    """What the scheduler starts again and again, in a thread, unless the last run has not ended."""

    task: str
    """For logs, as in ``could not send messages``."""
    interval_s: float
    run: Callable[[], object]
    wait: Callable[[float], object] = lambda timeout_s: None
    """Called when the scheduler ends: waits for what it has begun, for so many seconds."""


def _no_work(database: Database, settings: Settings) -> tuple[PeriodicWork, ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """What a feature does beside requests and jobs."""

    expired: tuple[ExpiredData, ...] = ()
    periodic: Callable[[Database, Settings], tuple[PeriodicWork, ...]] = _no_work


@functools.cache
def load() -> tuple[Hooks, ...]:
    """The hooks of all features, imported by the first call. A process that forks calls this before it forks."""
    return declarations.load(Room.HOOKS, Hooks)


def job_changed(session: Session | Connection, job: Job | Row[Any], *, reason: str) -> None:
    """A job has ended, or changes and goes on: see ``JobChanged``. Not called when a worker claims a job, or commits an
    epoch."""
    for hooks in load():
        if hooks.job_changed is not None:
            hooks.job_changed(session, job, reason=reason)


def happened(session: Session | Connection, happening: Happening) -> None:
    """Something has happened in this transaction."""
    for hooks in load():
        if hooks.happened is not None:
            hooks.happened(session, happening)


def adopted(session: Session, owner: str) -> None:
    """In this transaction, an owner is given everything that has none: sweeps and datasets before, jobs after it."""
    for hooks in load():
        if hooks.adopted is not None:
            hooks.adopted(session, owner)


def unowned() -> list[Unowned]:
    """The objects of features that may have no owner."""
    return [hooks.unowned for hooks in load() if hooks.unowned is not None]


def before_deletion(session: Session, job_ids: Collection[str]) -> None:
    """In this transaction, jobs are deleted, whose rows are locked.

    Raises:
        DeletionRefused: a feature needs one of them.
    """
    for hooks in load():
        if hooks.before_deletion is not None:
            hooks.before_deletion(session, job_ids)


def kept_epochs(job_id: SQLColumnExpression[str]) -> list[Select[int]]:
    """The epochs of a job whose checkpoints features need, a query each: neither they nor the job expire."""
    return [hooks.kept_epochs(job_id) for hooks in load() if hooks.kept_epochs is not None]


def resolve(session: Session, reference: str, *, owner: str | None) -> NamedCheckpoint | None:
    """The checkpoint that a reference means now, which is not the id of a job; ``None``: no feature has references of
    this form.

    Raises:
        ModelNotFound: it means none of this owner.
    """
    found = (hooks.resolve(session, reference, owner) for hooks in load() if hooks.resolve is not None)
    return next((named for named in found if named is not None), None)


@functools.cache
def expired() -> tuple[ExpiredData, ...]:
    """What features remove after a retention period."""
    return tuple(item for upkeep in declarations.load(Room.UPKEEP, Upkeep) for item in upkeep.expired)


def periodic(database: Database, settings: Settings) -> tuple[PeriodicWork, ...]:
    """What a scheduler does for features."""
    return tuple(
        item for upkeep in declarations.load(Room.UPKEEP, Upkeep) for item in upkeep.periodic(database, settings)
    )
