"""How fast machines compute, as their workers measured it, so that a plan can say how long a job will take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.storage.database import Database, now_ms
from service.storage.tables import Calibration, Worker

FRESH_MS: Final = 3600 * 1000
"""A machine that was measured within this time is not measured again."""
FORGOTTEN_MS: Final = 90 * 24 * 3600 * 1000


def is_fresh(database: Database, host: str) -> bool:
    """Whether a machine was measured a short while ago."""
    fresh = select(Calibration.host).where(Calibration.host == host, Calibration.measured_ms > now_ms() - FRESH_MS)
    with database.read() as session:
        return session.scalar(fresh) is not None


def store(database: Database, host: str, factors: Mapping[str, float]) -> None:
    """Keep what a machine's worker measured; machines that nobody has seen for long are forgotten."""
    values = {"factors": dict(factors), "measured_ms": now_ms()}
    insert = database.insert(Calibration).values(host=host, **values)
    with database.write() as session:
        session.execute(insert.on_conflict_do_update(index_elements=[Calibration.host], set_=values))
        session.execute(delete(Calibration).where(Calibration.measured_ms < now_ms() - FORGOTTEN_MS))


def factors(session: Session) -> dict[str, float] | None:
    """The factors of the machine that would probably train: one with a worker, else the one measured last."""
    living = Calibration.host.in_(select(Worker.host))
    row = session.scalars(select(Calibration).order_by(living.desc(), Calibration.measured_ms.desc()).limit(1)).first()
    return dict(row.factors) if row is not None else None
