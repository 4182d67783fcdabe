"""The audit log: each entry is written in the transaction of the action it records, and never changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from service.declarations import extended, installed
from service.runtime import tracing
from service.storage.database import now_ms
from service.storage.insertions import NewRow
from service.storage.tables import AUDIT, AuditEntry

_ADD: Final = AUDIT.insert().values(at_ms=now_ms())


class AuditAction(StrEnum):
    """The actions that are recorded."""

    SUBMIT = "submit"
    FORK = "fork"
    REPRODUCE = "reproduce"
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    CHANGE = "change"
    DELETE = "delete"
    EXPORT = "export"
    UPLOAD = "upload"
    DELETE_DATASET = "delete_dataset"
    CREATE_KEY = "create_key"
    ROTATE_KEY = "rotate_key"
    REVOKE_KEY = "revoke_key"
    INVITE = "invite"
    ADOPT = "adopt"
    CHANGE_OWNER = "change_owner"
    READ_OTHERS = "read_others"
    PUBLISH = "publish"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    INVITE_WORKER = "invite_worker"
    NEW_SIGNING_KEY = "new_signing_key"
    RETIRE_SIGNING_KEY = "retire_signing_key"
    SIGN_IN = "sign_in"
    SIGN_IN_REFUSED = "sign_in_refused"
    SIGN_OUT = "sign_out"


ACTIONS: Final = tuple(
    extended({action.value: action.name for action in AuditAction}, (item.audit_actions for item in installed()))
)
"""All actions that are recorded, with those of features."""
if TYPE_CHECKING:
    AnyAction = AuditAction
else:  # for documents
    AnyAction = StrEnum("AuditAction", {name.upper(): name for name in ACTIONS})
    AnyAction.__doc__ = AuditAction.__doc__


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """The owner and key that an action is attributed to, and the request that caused it."""

    owner: str | None = None
    key_id: str | None = None
    address: str | None = None
    request_id: str | None = None
    traceparent: str | None = None
    is_audited: bool = True
    """Not the requests to a service without keys: they have no owner."""
    recorded: list[dict[str, Any]] = field(default_factory=list)
    """Entries recorded so far, as ``action``, ``subject`` and ``detail``; the request log repeats them after the
    transaction."""


def record(
    session: Session | Connection, by: Actor | None, action: StrEnum, subject: str | None, /, **detail: Any
) -> None:
    """Add an entry to the audit log, if there is an actor who is audited.

    Args:
        action: an ``AuditAction``, or one that a feature declares.
        subject: the id of the job, key or session, or the name of the dataset.
        detail: further facts, under any names, without secrets.
    """
    if by is None or not by.is_audited:
        return
    session.execute(_ADD, _values(by, action, subject) | {"detail": detail})
    by.recorded.append(_recorded(action, subject, detail))


def new_rows(by: Actor | None, action: AuditAction, subject: str) -> list[NewRow]:
    """The row of an entry, for an insertion, if the actor is audited. Call ``was_recorded`` after it."""
    if by is None or not by.is_audited:
        return []
    return [NewRow(AUDIT, _values(by, action, subject) | {"detail": "{}"}, times=("at_ms",))]


def was_recorded(by: Actor | None, action: AuditAction, subject: str) -> None:
    """Note in ``by`` that the row of ``new_rows`` was inserted."""
    if by is not None and by.is_audited:
        by.recorded.append(_recorded(action, subject, {}))


def _recorded(action: StrEnum, subject: str | None, detail: dict[str, Any]) -> dict[str, Any]:
    # The details keep a key of their own: one of them may have the name of an argument of the logger.
    return {"action": action.value, "subject": subject, "detail": detail}


def owner_of(by: Actor | None) -> str | None:
    """The owner whose objects an actor may see; ``None`` means all, if no keys are required."""
    return by.owner if by is not None else None


def request_of(by: Actor | None) -> dict[str, str]:
    """The request behind an action, for the events of a job."""
    if by is None:
        return {}
    return ({"request_id": by.request_id} if by.request_id else {}) | tracing.named(by.traceparent)


def _values(by: Actor, action: StrEnum, subject: str | None) -> dict[str, Any]:
    actor = {"owner": by.owner, "key_id": by.key_id, "address": by.address, "request_id": by.request_id}
    return {"action": action.value, "subject": subject, **actor}


def read(
    session: Session,
    *,
    owner: str | None = None,
    action: str | None = None,
    subject: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> Sequence[AuditEntry]:
    """Entries, newest first; ``None`` means any.

    Args:
        before: only entries with a lower ``id``.
    """
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    for column, value in ((AuditEntry.owner, owner), (AuditEntry.action, action), (AuditEntry.subject, subject)):
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    return session.scalars(query).all()
