"""Liveness, readiness and Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog
from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from service.jobs import worker_registry
from service.maintenance import store_id
from service.storage.tables import Job
from service.web.core.core import core
from service.web.http import slots
from service.web.http.endpoint import PUBLIC, endpoint
from service.web.http.responses import as_json
from service.web.schemas.service import Check, Liveness, Readiness
from service.wording import counted

blueprint: Final = Blueprint("health", __name__)

TAG: Final = "Service"
_BROKER_TIMEOUT_S: Final = 1.0

_log = structlog.get_logger("tapeline.web")


@blueprint.get("/healthz")
@endpoint(TAG, Liveness, scope=PUBLIC, query=None)
def healthz() -> Liveness:
    """Report that this web process is running; checks nothing else."""
    return Liveness(status="ok")


@blueprint.get("/readyz")
@endpoint(TAG, Readiness, scope=PUBLIC, query=None, also={503: Readiness})
def readyz() -> Response:
    """Report whether the service can work.

    `down` (503): the database or the storage does not respond, or the storage is not that of the database. `degraded`:
    there is no broker, or no worker on a machine that is well; jobs are accepted and wait.
    """
    checks = {
        "database": _check("down", _database),
        "storage": _check("down", _storage),
        "broker": _broker(),
    }
    if checks["database"].status == "ok":
        checks["workers"] = _workers()
    states = {check.status for check in checks.values()}
    status = "down" if "down" in states else "degraded" if "degraded" in states else "ready"
    return as_json(Readiness(status=status, checks=checks), 503 if status == "down" else 200)


@blueprint.get("/metrics")
@endpoint(TAG, "text/plain", query=None, problems=("busy",))
def metrics() -> Response:
    """Export metrics for Prometheus, in its text format.

    Jobs by status and kind, queue waits, run times, epoch times, workers and heartbeats, open streams, responses by
    route, stored bytes. If the database does not respond, `tapeline_database_up` is 0 and part of them is missing.
    """
    with slots.hold(slots.SCRAPES):
        return Response(core().metrics.page(), content_type=CONTENT_TYPE_LATEST)


def _check(failure_status: str, probe: Callable[[], None]) -> Check:
    try:
        probe()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        # The endpoint is public: only the log has the details.
        _log.warning("not ready", error=str(error))
        return Check(status=failure_status, detail=type(error).__name__)
    return Check(status="ok")


def _database() -> None:
    with core().database.read() as session:
        session.execute(select(Job.id).limit(1)).first()


def _storage() -> None:
    core().artifacts.check_writable()
    with suppress(SQLAlchemyError):  # another check reports the database
        store_id.verify(core().database, core().settings.artifacts)


def _broker() -> Check:
    publisher = core().publisher
    if not publisher.has_broker:
        return Check(status="degraded", detail="no broker is configured; workers look for jobs by themselves")
    return _check("degraded", lambda: publisher.check_broker(_BROKER_TIMEOUT_S))


def _workers() -> Check:
    with core().database.read() as session:
        alive = worker_registry.live_workers(session)
        impediment = worker_registry.impediment(session, core().settings)
    slots, running = sum(row.slots for row in alive), sum(row.running for row in alive)
    detail = f"{counted(len(alive), 'worker')}, {running} of {slots} slots busy"
    if blocked := sum(row.blocked is not None for row in alive):
        detail += f"; {counted(blocked, 'worker')} on a machine with a fault"
    if impediment is not None:
        return Check(status="degraded", detail=f"{detail}. {impediment.text}")
    return Check(status="ok", detail=detail)
