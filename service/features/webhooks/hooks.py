"""What webhooks tell of: jobs that have ended or are paused, and what else happens to objects of owners."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, Row, update
from sqlalchemy.orm import Session

from service.features.webhooks import outbox
from service.features.webhooks.outbox import MessageType
from service.features.webhooks.tables import Webhook
from service.hooks import Happening, HappeningKind, Hooks
from service.states import TERMINAL, Reason, Status
from service.storage.tables import Job

_NOT_TOLD: Final = ("changed", Reason.PAUSED_BY_SWEEP)
"""Reasons in the events of a job that has not ended or been paused now, or waits for its own sweep."""
_TYPES: Final = {HappeningKind(kind.value): kind for kind in MessageType if kind.value in set(HappeningKind)}


def _tell_of_job(session: Session | Connection, job: Job | Row[Any], *, reason: str) -> None:
    if reason in _NOT_TOLD or (job.status != Status.PAUSED and Status(job.status) not in TERMINAL):
        return
    data: dict[str, Any] = {
        "id": job.id,
        "url": f"/jobs/{job.id}",
        "name": job.name,
        "status": job.status,
        "reason": reason,
    }
    data |= {"kind": job.kind, "sweep": job.sweep_id, "seq": job.last_seq}
    outbox.announce(session, owner=job.owner, kind=MessageType(f"job.{job.status}"), data=data)


def _tell(session: Session | Connection, happening: Happening) -> None:
    if (kind := _TYPES.get(happening.kind)) is not None:
        outbox.announce(session, owner=happening.owner, kind=kind, data=happening.data, once=happening.once)


def _adopt(session: Session, owner: str) -> None:
    session.execute(update(Webhook).where(Webhook.owner.is_(None)).values(owner=owner))  # they tell of the jobs


HOOKS: Final = Hooks(job_changed=_tell_of_job, happened=_tell, adopted=_adopt)
