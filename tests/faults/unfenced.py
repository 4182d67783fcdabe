"""A deliberate defect, which tests must detect: writes without the lease guard."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, Row, Select, and_, select
from sqlalchemy.orm import Session

from service.errors import LeaseLost
from service.jobs import leases, renewals
from service.jobs.leases import Claim
from service.states import Status
from service.storage.tables import Job


def remove_lease_guard(monkeypatch: pytest.MonkeyPatch, *, keeps_status: bool) -> None:
    """Let any claim write to its job, whoever has the lease.

    Args:
        keeps_status: only while the job is running.
    """
    any_status = Job.status.in_([Status.RUNNING] if keeps_status else list(Status))

    def guard(session: Session, held: Claim, **values: Any) -> Job:
        job = session.scalar(select(Job).where(Job.id == held.job_id, any_status))
        if job is None:
            raise LeaseLost(held.job_id, held.lease)
        for name, value in values.items():
            setattr(job, name, value)
        return job

    def lock(connection: Connection | Session, held: Claim, statement: Select[Any]) -> Row[Any]:
        query = select(*(item["expr"] for item in statement.column_descriptions))
        query = query.where(Job.id == held.job_id, any_status)
        row = connection.execute(query).first()
        if row is None:
            raise LeaseLost(held.job_id, held.lease)
        return row

    monkeypatch.setattr(leases, "guard", guard)
    monkeypatch.setattr(leases, "_is_held", lambda held: and_(Job.id == held.job_id, any_status))
    monkeypatch.setattr(leases, "lock", lock)
    monkeypatch.setattr(renewals, "_are_held", lambda claims: Job.id.in_([held.job_id for held in claims]))
