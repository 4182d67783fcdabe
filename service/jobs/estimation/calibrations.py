"""Calibrations: the speed of machines as measured by their workers, for estimates of training time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.storage.database import Database, now_ms
from service.storage.machine_tables import Calibration, Worker

FRESH_MS: Final = 3600 * 1000
"""A machine is measured again once its calibration is older than this."""
EXPIRY_MS: Final = 90 * 24 * 3600 * 1000


def is_fresh(database: Database, host: str) -> bool:
    """Whether a machine was measured recently."""
    query = select(Calibration.host).where(Calibration.host == host, Calibration.measured_ms > now_ms() - FRESH_MS)
    with database.read() as session:
        return session.scalar(query) is not None


def store(database: Database, host: str, factors: Mapping[str, float]) -> None:
    """Store the factors of a machine, and delete expired ones of other machines."""
    values = {"factors": dict(factors), "measured_ms": now_ms()}
    insert = database.insert(Calibration).values(host=host, **values)
    with database.write() as session:
        session.execute(insert.on_conflict_do_update(index_elements=[Calibration.host], set_=values))
        session.execute(delete(Calibration).where(Calibration.measured_ms < now_ms() - EXPIRY_MS))


def factors(session: Session) -> dict[str, float] | None:
    """The factors of the machine that will probably train: the latest one with a worker, or the latest of all."""
    has_worker = Calibration.host.in_(select(Worker.host))
    row = session.scalars(
        select(Calibration).order_by(has_worker.desc(), Calibration.measured_ms.desc()).limit(1)
    ).first()
    return dict(row.factors) if row is not None else None
