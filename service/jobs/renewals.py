"""Renewals of leases, and the requests that wait for the jobs of a worker: what each worker asks for all the time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Row, and_, bindparam, case, literal, select, update

from service.jobs import leases
from service.jobs.leases import Claim, Position, Usage
from service.states import Request, Status
from service.storage.database import Database, locking
from service.storage.tables import JOBS


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What the renewal of one lease reports."""

    claim: Claim
    position: Position | None = None
    used: Usage | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """What users and the service request of the jobs of one worker."""

    requests: Mapping[Claim, Request | None]
    """Of each job that runs under its lease; a renewal leaves out those that are locked."""
    lost: Collection[Claim]
    """Leases that are held no more."""


_COLUMNS: Final = (
    JOBS.c.id,
    JOBS.c.lease,
    JOBS.c.lease_token,
    JOBS.c.requested,
    JOBS.c.budget_seconds,
    JOBS.c.cpu_seconds,
)
_REQUESTED: Final = select(*_COLUMNS).where(
    JOBS.c.id.in_(bindparam("ids", expanding=True)), JOBS.c.status == Status.RUNNING
)


def renew(database: Database, renewals: Collection[Renewal]) -> Pending:
    """Renew leases of one worker, all for the same time, and report progress and resources, in one statement.

    It waits for no lock. A job whose row is locked is left out; what is written to it under its lease renews it, too.
    """
    held = {renewal.claim.job_id: renewal for renewal in renewals}
    claims = [renewal.claim for renewal in renewals]
    free = locking(select(JOBS.c.id).where(_are_held(claims)), skip_locked=True)
    positions = {job_id: renewal.position for job_id, renewal in held.items() if renewal.position is not None}
    used = {job_id: renewal.used for job_id, renewal in held.items() if renewal.used is not None}
    values: dict[str, Any] = {"lease_expires_ms": leases.expiry(max(claim.lease_s for claim in claims))}
    if positions:
        # The child may have committed an epoch since the supervisor read its position.
        steps = _by_job(JOBS.c.step, {job_id: position.step for job_id, position in positions.items()})
        values["step"] = leases.at_least(JOBS.c.step, steps)
        values["steps"] = _by_job(JOBS.c.steps, {job_id: position.steps for job_id, position in positions.items()})
        rates = {job_id: position.steps_per_second for job_id, position in positions.items()}
        values["steps_per_second"] = _by_job(JOBS.c.steps_per_second, rates)
    if used:
        seconds = _by_job(JOBS.c.cpu_seconds, {job_id: item.cpu_seconds for job_id, item in used.items()})
        peaks = {job_id: item.peak_memory_bytes for job_id, item in used.items()}
        values["cpu_seconds"] = leases.at_least(JOBS.c.cpu_seconds, seconds)
        values["peak_memory_bytes"] = leases.at_least(
            JOBS.c.peak_memory_bytes, _by_job(JOBS.c.peak_memory_bytes, peaks)
        )
    statement = update(JOBS).where(JOBS.c.id.in_(free)).values(values).returning(*_COLUMNS)
    rows = database.run_alone(lambda connection: connection.execute(statement).all(), writes=True)
    requests = {held[row.id].claim: _request(row) for row in rows}
    missing = [claim for claim in claims if claim not in requests]
    return Pending(requests, requested(database, missing).lost if missing else frozenset())


def requested(database: Database, claims: Collection[Claim]) -> Pending:
    """Read the pending requests to jobs of one worker, without renewing their leases."""
    parameters = {"ids": [claim.job_id for claim in claims]}
    rows = database.run_alone(lambda connection: connection.execute(_REQUESTED, parameters).all())
    found = {(row.id, row.lease, row.lease_token): _request(row) for row in rows}
    held = {item: (item.job_id, item.lease, item.token) for item in claims}
    requests = {item: found[key] for item, key in held.items() if key in found}
    return Pending(requests, frozenset(item for item in claims if item not in requests))


def _are_held(claims: Collection[Claim]) -> ColumnElement[bool]:
    return and_(leases.is_one_of(claims), JOBS.c.status == Status.RUNNING)


def _request(row: Row[*tuple[Any, ...]]) -> Request | None:
    return Request(row.requested) if row.requested else Request.BUDGET if leases.is_budget_spent(row) else None


def _by_job(column: Column[Any], values: Mapping[str, Any]) -> ColumnElement[Any]:
    """The value of each job; the others keep theirs."""
    return case(
        {job_id: literal(value, column.type) for job_id, value in values.items()}, value=JOBS.c.id, else_=column
    )
