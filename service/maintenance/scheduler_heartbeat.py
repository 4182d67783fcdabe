"""The heartbeat of the scheduler: a row that its loop writes, and that shows when nobody rescues jobs any more."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.storage.database import Database, now_ms
from service.storage.tables import SchedulerHeartbeat
from tapeline.version import VERSION

INTERVAL_S: Final = 5.0
SILENT_S: Final = 30.0
"""A scheduler without a heartbeat for so long is stopped, or cannot reach the database."""

STOPPED: Final = "Lost workers are not noticed, and sweeps, retention, webhooks and the audit log's seals stand still."
"""What a stopped scheduler means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastBeat:
    """The last heartbeat of any scheduler."""

    host: str
    version: str
    age_s: float
    """By the database's clock."""

    @property
    def is_silent(self) -> bool:
        """Whether no scheduler runs."""
        return self.age_s > SILENT_S


def beat(database: Database) -> None:
    """Record that this scheduler has just handled expired leases. Of several schedulers, the last one is recorded."""
    values = {"host": socket.gethostname()[:255], "version": VERSION, "seen_ms": now_ms()}
    statement = database.insert(SchedulerHeartbeat).values(number=1, **values)
    with database.write() as session:
        session.execute(statement.on_conflict_do_update(index_elements=[SchedulerHeartbeat.number], set_=values))


def last_beat(session: Session) -> LastBeat | None:
    """The last heartbeat; ``None`` if no scheduler that writes one has run."""
    row = session.execute(
        select(SchedulerHeartbeat.host, SchedulerHeartbeat.version, now_ms() - SchedulerHeartbeat.seen_ms)
    ).first()
    return None if row is None else LastBeat(host=row[0], version=row[1], age_s=max(0, row[2]) / 1000)
