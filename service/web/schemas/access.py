"""Keys, sessions, usage per owner, and the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field

from service.access import keys
from service.access.audit import AuditAction
from service.access.audit_chain import Seal
from service.access.keys import Identity, Scope
from service.access.usage import Usage
from service.states import Status
from service.storage.tables import ApiKey, AuditEntry
from service.web.http.schemas import Answer, Timestamp


class KeyItem(Answer):
    """An API key, without its secret."""

    id: str
    name: str
    owner: str
    scope: Scope
    created_at: Timestamp = Field(validation_alias="created_ms")
    expires_at: Timestamp | None = Field(validation_alias="expires_ms", description="Null: never.")
    revoked_at: Timestamp | None = Field(validation_alias="revoked_ms")
    state: str = Field(description="`valid`, `expired` or `revoked`.")
    last_recorded_at: Timestamp | None = Field(
        description="The key's last action in the audit: a submission, a change, a sign-in. Reads are not recorded."
    )
    last_used_at: Timestamp | None = Field(
        description="The key's last request of any kind, accurate to about half a minute; null: never used."
    )
    replaced_by: str | None = Field(description="Id of the key that a rotation created in its place.")


class NewKey(KeyItem):
    """A new API key, with its secret."""

    key: str = Field(description="The key itself. It is shown once and cannot be read again.")


class RotatedKey(NewKey):
    """The new API key after a rotation, with its secret."""

    replaces: KeyItem = Field(description="The old key, with its new expiry.")


class KeyList(Answer):
    """All API keys, the oldest first, revoked ones included."""

    data: list[KeyItem]
    of_settings: int = Field(description="Further keys in `TAPELINE_API_KEYS`; only the operator can change these.")
    required: bool = Field(description="Whether this service requires keys.")


class SessionItem(Answer):
    """The caller's identity and permissions."""

    owner: str | None = Field(
        description="Owner of the visible jobs; null if keys are not required: all jobs are visible."
    )
    scope: Scope = Field(description="Permissions of the key: each scope includes those before it.")
    key: str | None = Field(validation_alias="key_name", description="The key's name.")
    expires_at: Timestamp | None = Field(validation_alias="expires_ms", description="Null: no expiry.")


class UsageItem(Answer):
    """What one owner uses. Deleted jobs and files are not included."""

    owner: str | None = Field(description="Null: jobs and files that were created without keys.")
    jobs: dict[Status, int] = Field(description="Jobs by status; a status without jobs is left out.")
    stopped_by_sweep: int = Field(description="Cancelled jobs that their sweeps stopped.")
    cpu_seconds: float = Field(description="CPU time of all jobs, as far as measured.")
    artifact_bytes: int = Field(description="Files of jobs: checkpoints, samples and exports.")
    expected_bytes: int = Field(description="Further bytes that the files of unfinished jobs may take.")
    dataset_bytes: int = Field(description="Uploaded datasets.")
    keys: int = Field(description="Keys that are not revoked.")
    requests_left: int | None = Field(description="Requests left in this minute; null: no limit.")
    upload_bytes_left: int | None = Field(description="Bytes that may still be uploaded today; null: no limit.")
    artifact_bytes_left: int | None = Field(
        description="Bytes that the files of new jobs may be expected to take; null: no limit."
    )


class UsageList(Answer):
    """Usage per owner, largest first: of all owners for the scope `admin`, otherwise of the caller."""

    data: list[UsageItem]


class AuditItem(Answer):
    """An entry of the audit log."""

    id: int
    at: Timestamp = Field(validation_alias="at_ms")
    action: AuditAction
    subject: str | None = Field(description="The id of the job, key or session, or the name of the dataset.")
    owner: str | None
    key: str | None = Field(validation_alias="key_id", description="Id of the key that was used.")
    address: str | None
    request_id: str | None
    detail: dict[str, Any]


class AuditList(Answer):
    """The audit log, newest first."""

    data: list[AuditItem]
    next_before: int | None = Field(description="`before` of the next page; null: this is the last page.")

    @classmethod
    def of(cls, rows: Sequence[AuditEntry], *, limit: int) -> Self:
        """A page.

        Args:
            rows: up to ``limit`` entries, and one more if there is a next page.
        """
        data = [AuditItem.represent(row) for row in rows[:limit]]
        return cls(data=data, next_before=data[-1].id if len(rows) > limit else None)


class SealItem(Answer):
    """A seal of the audit log: one link of its hash chain."""

    id: int
    first_id: int = Field(description="Id of the first entry.")
    last_id: int
    count: int = Field(description="Number of entries.")
    entries_digest: str = Field(description="SHA-256 of the entries.")
    digest: str = Field(description="SHA-256 over the previous seal's digest and this seal.")
    created_at: Timestamp = Field(validation_alias="created_ms")
    removed_at: Timestamp | None = Field(
        validation_alias="removed_ms", description="When retention removed the entries; null: they are kept."
    )


class SealList(Answer):
    """The seals of the audit log, newest first: the first digest is the head of the chain."""

    data: list[SealItem]
    next_before: int | None = Field(description="`before` of the next page; null: this is the last page.")

    @classmethod
    def of(cls, seals: Sequence[Seal], *, limit: int) -> Self:
        """A page; the arguments are those of ``AuditList.of``."""
        data = [SealItem.represent(seal) for seal in seals[:limit]]
        return cls(data=data, next_before=data[-1].id if len(seals) > limit else None)


def key_item(row: ApiKey, *, now: int, last_ms: int | None = None) -> KeyItem:
    """A key for a list.

    Args:
        now: the database's clock, in milliseconds.
        last_ms: when its last action was recorded.
    """
    return KeyItem.represent(
        row,
        state=keys.state_of(row, now=now),
        last_recorded_at=last_ms,
        last_used_at=keys.last_used(row, last_ms),
    )


def session_item(caller: Identity | None) -> SessionItem:
    """The identity behind a request; ``None`` where no keys are required."""
    if caller is None:
        return SessionItem(owner=None, scope=Scope.ADMIN, key=None, expires_at=None)
    return SessionItem.represent(caller)


def usage_item(
    item: Usage, *, requests_left: int | None, upload_bytes_left: int | None, artifact_bytes_left: int | None
) -> UsageItem:
    """One owner's usage."""
    return UsageItem.represent(
        item,
        cpu_seconds=round(item.cpu_seconds, 1),
        requests_left=requests_left,
        upload_bytes_left=upload_bytes_left,
        artifact_bytes_left=artifact_bytes_left,
    )
