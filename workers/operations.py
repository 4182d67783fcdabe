"""The operations of a training process on the database, which its supervisor executes.

A training process has no connection: it sends a ``Call`` and waits for the ``Reply``. Values cross as JSON from which
the same value is made again, with the same types and bits; the tables below list what may cross.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Final

import structlog
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service import states
from service.datasets import uploads
from service.errors import JobNotFound, LeaseLost, ServiceError, StorageQuotaExceeded, WrongStore
from service.jobs import commits, epoch_commits, leases
from service.jobs.differences import results
from service.jobs.epoch_commits import EpochRecord
from service.jobs.events import EventType
from service.jobs.leases import Claim, Position, Usage
from service.jobs.reuse import reused_epochs
from service.jobs.reuse.copies import Copied
from service.jobs.reuse.reused_epochs import Outcome
from service.jobs.reuse.sources import Source
from service.schema.findings import Advice, Finding
from service.storage.artifacts import ArtifactDamaged, ArtifactKind, StoredFile
from service.storage.database import Database
from service.storage.tables import Artifact, Base, Epoch, Event, Job, Upload
from service.sweeps import decisions

_UNDER_LEASE: Final = (
    leases.begin,
    leases.budget_left,
    leases.release_lease,
    commits.checkpoints,
    commits.drop_checkpoint,
    commits.finished_epochs,
    commits.log,
    commits.pinned_checkpoint,
    commits.succeed_prediction,
    results.conclude,
    results.read_jobs,
    reused_epochs.disable,
    reused_epochs.find,
    reused_epochs.read,
    reused_epochs.result_of,
)
"""Functions of the database, the claim and further arguments."""
_DECIDING: Final = (
    leases.release_for_fault,
    epoch_commits.commit,
    epoch_commits.succeed,
    commits.fail,
    reused_epochs.store,
)
"""Likewise; if the job pauses or ends, the decisions of its sweep belong to the same transaction."""
_QUERIES: Final = (uploads.of_id, uploads.listed, uploads.versions)
"""Functions of a session and further arguments, which only read."""

OUTAGE_ERRORS: Final = (OperationalError, InterfaceError, InternalError, PoolTimeout)
"""The database is unavailable, locked, full or a standby, or the connection broke: the outcome is unknown.
(PostgreSQL reports a transaction that was idle for too long as an internal error.)"""

log = structlog.get_logger()

_CODES: Final = {
    function: f"{function.__module__}.{function.__name__}" for function in (*_UNDER_LEASE, *_DECIDING, *_QUERIES)
}
"""The name of each operation in a message."""
_OPERATIONS: Final[dict[str, Callable[..., Any]]] = {code: function for function, code in _CODES.items()}
_DECIDING_CODES, _QUERY_CODES = ({_CODES[function] for function in table} for table in (_DECIDING, _QUERIES))
_COMMIT_CODES = {_CODES[epoch_commits.commit], _CODES[epoch_commits.succeed]}


class OutcomeUnknown(LeaseLost):
    """The lease was lost after an attempt whose response was lost, so it may have been committed."""


class Interrupted(ServiceError):
    """A stop was ordered while the database did not respond."""


class OperationFailed(ServiceError):
    """The supervisor met an error that no operation should raise."""


_ERRORS: Final[Mapping[str, tuple[type[ServiceError], tuple[str, ...]]]] = {
    "lease_lost": (LeaseLost, ("job_id", "lease")),
    "outcome_unknown": (OutcomeUnknown, ("job_id", "lease")),
    "storage_quota": (StorageQuotaExceeded, ("owner", "stored", "added", "limit")),
    "wrong_store": (WrongStore, ()),
    "artifact_damaged": (ArtifactDamaged, ("path", "reason")),
    "job_not_found": (JobNotFound, ("job_id",)),
    "interrupted": (Interrupted, ()),
    "failed": (OperationFailed, ()),
}
"""The errors that cross, with the attributes that their constructors take; without any, the message."""
_EXPECTED: Final = (JobNotFound, StorageQuotaExceeded, WrongStore, ArtifactDamaged)


@dataclass(frozen=True, slots=True)
class Call:
    """Report: the child waits for the reply of an operation."""

    operation: str
    arguments: Any
    """Positional ones and, by name, others; encoded."""
    is_interruptible: bool
    """Whether a stop ends its retries."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Command: the result of the call that waits for it."""

    value: Any = None
    """Encoded."""
    error: Sequence[Any] | None = None
    """A name of the table above, and the encoded arguments of the error."""

    def result(self) -> Any:
        """The value; raises the error, if there is one."""
        if self.error is None:
            return decode(self.value)
        name, arguments = self.error
        raise _ERRORS[name][0](*decode(arguments))


def call(operation: Callable[..., Any], *arguments: Any, is_interruptible: bool = True, **named: Any) -> Call:
    """The message that asks for an operation."""
    return Call(_CODES[operation], encode([arguments, named]), is_interruptible)


def execute(database: Database, claim: Claim, message: Call) -> Reply:
    """Execute an operation once: one transaction.

    Returns:
        Its value, or an error that its caller expects.

    Raises:
        LeaseLost: the lease is held no more.
        SQLAlchemyError: the database does not respond, so the outcome is unknown.
    """
    function = _OPERATIONS[message.operation]
    arguments, named = decode(message.arguments)
    try:
        if message.operation in _QUERY_CODES:
            return Reply(encode(database.query(function, *arguments, **named)))
        if message.operation in _DECIDING_CODES:
            named["then"] = decisions.after_result
        return Reply(encode(function(database, claim, *arguments, **named)))
    except _EXPECTED as error:
        return refusal(error)


class Execution:
    """The execution of one call, which is repeated until the database responds."""

    def __init__(self, message: Call) -> None:
        self._message, self._attempts = message, 0

    @property
    def commits_epochs(self) -> bool:
        """Whether the call commits epochs or a result."""
        return self._message.operation in _COMMIT_CODES

    def attempt(self, database: Database, claim: Claim, *, is_stopping: bool) -> Reply | None:
        """Execute the call once; ``None``: it must be repeated, since the database does not respond.

        Args:
            is_stopping: whether a stop was ordered.
        """
        self._attempts += 1
        try:
            return execute(database, claim, self._message)
        except OUTAGE_ERRORS as error:
            log.warning("database unavailable; retrying", error=str(error))
            if self._message.is_interruptible and is_stopping:
                return refusal(Interrupted(str(error)))
            return None
        except LeaseLost as error:
            return refusal(error if self._attempts == 1 else OutcomeUnknown(error.job_id, error.lease))
        except MemoryError as error:  # of this process, not of the job
            log.warning("out of memory; retrying", error=str(error))
            return None
        except Exception as error:
            log.exception("an operation failed")
            return refusal(OperationFailed(f"{type(error).__name__}: {error}"))


def refusal(error: ServiceError) -> Reply:
    """The reply that raises an error of the table again."""
    name, attributes = next((name, attributes) for name, (kind, attributes) in _ERRORS.items() if type(error) is kind)
    return Reply(error=[name, encode([getattr(error, key) for key in attributes] if attributes else [str(error)])])


_MARK: Final = "~"
"""The key that marks an object which is not a plain dictionary."""
_DATACLASSES: Final = {
    kind.__name__: kind for kind in (Advice, Copied, EpochRecord, Finding, Position, Source, StoredFile, Usage)
}
_ROWS: Final = {kind.__name__: kind for kind in (Artifact, Epoch, Event, Job, Upload)}
_ENUMS: Final = {
    kind.__name__: kind
    for kind in (ArtifactKind, EventType, Outcome, *vars(states).values())
    if isinstance(kind, type) and issubclass(kind, Enum) and list(kind)
}


def encode(value: Any) -> Any:
    """JSON from which ``decode`` makes the same value; a row becomes one without a session.

    Raises:
        TypeError: values of this type do not cross.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str, float):
        return value
    if kind is list:
        return [encode(item) for item in value]
    if kind is dict and all(type(key) is str for key in value) and _MARK not in value:
        return {key: encode(item) for key, item in value.items()}
    if kind is tuple:
        return {_MARK: "tuple", "items": [encode(item) for item in value]}
    if isinstance(value, Mapping):
        return {_MARK: "dict", "items": [[encode(key), encode(item)] for key, item in value.items()]}
    name = kind.__name__
    if _ENUMS.get(name) is kind:
        return {_MARK: name, "value": value.value}
    if _DATACLASSES.get(name) is kind:
        return {_MARK: name, "value": {item.name: encode(getattr(value, item.name)) for item in fields(value)}}
    if _ROWS.get(name) is kind:
        return {_MARK: name, "value": {key: encode(getattr(value, key)) for key in _columns(kind)}}
    if isinstance(value, float):  # NumPy's float64 is one
        return float(value)
    raise TypeError(f"{kind.__name__} values do not cross between a child and its supervisor")


def decode(value: Any) -> Any:
    """The value of which ``encode`` made this JSON.

    Raises:
        ValueError: it made no such JSON.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"~": "tuple", "items": items}:
            return tuple(decode(item) for item in items)
        case {"~": "dict", "items": items}:
            return {decode(key): decode(item) for key, item in items}
        case {"~": name, "value": content} if name in _ENUMS:
            return _ENUMS[name](content)
        case {"~": name, "value": content} if name in _DATACLASSES or name in _ROWS:
            return {**_DATACLASSES, **_ROWS}[name](**{key: decode(item) for key, item in content.items()})
        case {"~": name}:
            raise ValueError(f"unknown value: {name}")
    return {key: decode(item) for key, item in value.items()}


def _columns(row: type[Base]) -> Sequence[str]:
    return [attribute.key for attribute in row.__mapper__.column_attrs]
