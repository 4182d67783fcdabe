"""The service: workers, queue, limits, presets, probes and metrics."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import structlog
from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.access.keys import Scope
from service.errors import WorkerNotFound
from service.jobs import worker_registry
from service.jobs.queries import queue
from service.jobs.queries.queue import Queue
from service.jobs.request_bodies import DrainRequest
from service.jobs.worker_registry import Impediment
from service.maintenance import scheduler_heartbeat
from service.spec.presets.definitions import PRESET_INFO
from service.storage.tables import Job
from service.web.admin.owner_schemas import OwnerLimits
from service.web.admin.schemas import (
    Check,
    Limits,
    Liveness,
    PresetItem,
    PresetList,
    QueueList,
    QueueQuery,
    Readiness,
    WorkerItem,
    WorkerList,
    queue_list,
    worker_item,
)
from service.web.core.core import core, owner, provided
from service.web.core.store_check import StoreCheck
from service.web.docs import openapi
from service.web.gate.access_checks import actor, sees_all
from service.web.http import slots
from service.web.http.endpoint import PUBLIC, endpoint
from service.web.http.path_parameters import PathParameter
from service.web.http.responses import as_json
from service.wording import counted

blueprint: Final = Blueprint("workers", __name__)

TAG: Final = "Service"
WORKER_ID: Final = PathParameter(
    "worker_id",
    "A worker's id, as in `GET /workers`.",
    "gpu-room-2-71-0123abcd",
    not_found=lambda path: WorkerNotFound(path["worker_id"]),
    form=re.compile(r"[0-9A-Za-z._-]{1,80}"),
)


@blueprint.get("/workers")
@endpoint(TAG, WorkerList, page="/ui/workers", client="workers")
def workers() -> WorkerList:
    """List the workers of the last minute, with the caller's running jobs."""
    with core().database.read() as session:
        return WorkerList(data=_items(session))


@blueprint.post("/workers/<worker_id>/drain")
@endpoint(
    TAG,
    WorkerItem,
    status=202,
    scope=Scope.ADMIN,
    body=DrainRequest,
    problems=("worker_not_found",),
    client="drain_worker",
    is_repeatable=True,
)
def drain(worker_id: str, body: DrainRequest) -> WorkerItem:
    """Drain a worker: it claims no more jobs. Requires the scope `admin`.

    Its jobs are released after the current batch, and others continue them; with `"running": "finish"` they end first.
    The worker sees that within five seconds. A worker that is started again is not drained.
    """
    worker_registry.drain(core().database, worker_id, body.running, by=actor())
    return _item(worker_id)


@blueprint.delete("/workers/<worker_id>/drain")
@endpoint(TAG, WorkerItem, status=202, scope=Scope.ADMIN, problems=("worker_not_found",), client="undrain_worker")
def undrain(worker_id: str) -> WorkerItem:
    """Let a drained worker claim jobs again, within five seconds. Requires the scope `admin`."""
    worker_registry.undrain(core().database, worker_id, by=actor())
    return _item(worker_id)


def _item(worker_id: str) -> WorkerItem:
    with core().database.read() as session:
        found = next((item for item in _items(session) if item.id == worker_id), None)
    if found is None:  # it stopped at this moment
        raise WorkerNotFound(worker_id)
    return found


def _items(session: Session) -> list[WorkerItem]:
    running = queue.running(session, owner=owner())
    alive = worker_registry.live_workers(session)
    differs, with_messages = worker_registry.differences(alive), sees_all()
    return [worker_item(row, running.get(row.id, []), differs[row.id], with_messages=with_messages) for row in alive]


@blueprint.get("/queue")
@endpoint(TAG, QueueList, query=QueueQuery, problems=("owner_not_found",), page="/ui/queue", client="queue")
def waiting(query: QueueQuery) -> QueueList:
    """List the queued jobs in the order in which workers are expected to claim them, and why they wait.

    Without `owner`, only the caller's jobs are listed; their positions count the jobs of all owners. Owners share the
    slots by their weights; priorities up to 5 order the jobs of one owner, higher ones go before those of all.
    """
    head, impediment = read_queue(query.limit)
    with core().database.read() as session:
        return queue_list(head, impediment, queue.waiting_by_owner(session) if sees_all() else None)


def read_queue(limit: int) -> tuple[Queue, Impediment | None]:
    """The caller's queued jobs, and why no job of anybody starts."""
    settings = core().settings
    with core().database.read() as session:
        head = queue.read(session, owner=owner(), limit=limit)
        return head, worker_registry.impediment(session, settings)


limits_blueprint: Final = Blueprint("limits", __name__)


@limits_blueprint.get("/limits")
@endpoint(TAG, Limits)
def limits() -> Limits:
    """Show the limits of specs and uploads, the names that are valid in specs, and the owner's quotas."""
    datasets = [info.name for info in core().repository.catalogue(owner()) if info.problem is None]
    caller = owner()
    return Limits.of(OwnerLimits.of(core().quotas.of(caller)) if caller is not None else None, datasets)


presets_blueprint: Final = Blueprint("presets", __name__)


@presets_blueprint.get("/presets")
@endpoint(TAG, PresetList, client="presets")
def show_list() -> PresetList:
    """List the presets with a summary, measured results and the full spec."""
    data = [PresetItem.of(kind, name, info) for kind, presets in PRESET_INFO.items() for name, info in presets.items()]
    return PresetList(data=data)


@presets_blueprint.get("/schema.json")
@endpoint(TAG, "application/schema+json")
def schema() -> Response:
    """Return the JSON Schema of specs. The preset fills in omitted fields."""
    return as_json(openapi.spec_schema(), headers={"Content-Type": "application/schema+json"})


health_blueprint: Final = Blueprint("health", __name__)

_BROKER_TIMEOUT_S: Final = 1.0
_STORE_TIMEOUT_S: Final = 3.0

_log = structlog.get_logger("tapeline.web")


@health_blueprint.get("/healthz")
@endpoint(TAG, Liveness, scope=PUBLIC, query=None)
def healthz() -> Liveness:
    """Report that this web process is running; checks nothing else."""
    return Liveness(status="ok")


@health_blueprint.get("/readyz")
@endpoint(TAG, Readiness, scope=PUBLIC, query=None, other_responses={503: Readiness})
def readyz() -> Response:
    """Report whether the service can work.

    `down` (503): the database or the storage does not respond, or the storage is not that of the database. `degraded`:
    there is no broker, no worker on a machine that is well, or no scheduler; jobs are accepted and wait.
    """
    checks = {
        "database": _check("down", _database),
        "storage": _check("down", _storage),
        "broker": _broker(),
    }
    if checks["database"].status == "ok":
        checks |= {"workers": _workers(), "scheduler": _scheduler()}
    states = {check.status for check in checks.values()}
    status = "down" if "down" in states else "degraded" if "degraded" in states else "ready"
    return as_json(Readiness(status=status, checks=checks), 503 if status == "down" else 200)


@health_blueprint.get("/metrics")
@endpoint(TAG, "text/plain", query=None, problems=("busy",))
def metrics() -> Response:
    """Export metrics for Prometheus, in its text format.

    Jobs by status and kind, queue waits, run times, epoch times, workers and heartbeats, open streams, responses by
    route, stored bytes; for the scope `admin`, what the twenty largest owners use. If the database does not respond,
    `tapeline_database_up` is 0 and part of them is missing.
    """
    with slots.hold(slots.SCRAPES):
        return Response(core().metrics.page(with_owners=sees_all()), content_type=CONTENT_TYPE_LATEST)


def _check(failure_status: str, probe: Callable[[], str | None]) -> Check:
    """The state of what ``probe`` accesses; it returns what is known of it."""
    try:
        detail = probe()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        # The endpoint is public: only the log has the details.
        _log.warning("not ready", error=str(error))
        return Check(status=failure_status, detail=type(error).__name__)
    return Check(status="ok", detail=detail)


def _database() -> None:
    with core().database.read() as session:
        session.execute(select(Job.id).limit(1)).first()


def _storage() -> str:
    provided(StoreCheck).run(_STORE_TIMEOUT_S)
    return core().settings.store.partition(":")[0] or "folder"


def _broker() -> Check:
    publisher = core().publisher
    if not publisher.has_broker:
        return Check(status="degraded", detail="no broker is configured; workers look for jobs by themselves")
    return _check("degraded", lambda: publisher.check_broker(_BROKER_TIMEOUT_S))


def _scheduler() -> Check:
    """Never `down`: this process still answers, and a load balancer must not take it away."""
    with core().database.read() as session:
        last = scheduler_heartbeat.last_beat(session)
    if last is None or last.is_silent:
        seen = "none has run" if last is None else f"last seen {last.age_s:.0f} s ago"
        return Check(status="degraded", detail=f"{seen}. {scheduler_heartbeat.STOPPED}")
    return Check(status="ok", detail=f"last seen {last.age_s:.0f} s ago")


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
