"""The service itself: whether it is well, who works in it, and what it allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, get_args

import structlog
from flask import Blueprint, Response
from sqlalchemy import select

from service import datasets
from service.contract import leases, spec, validation
from service.contract.presets import DEFAULT_PRESET, PRESETS
from service.contract.tables import Job
from service.web import queries
from service.web.answers import as_json
from service.web.operations import documented
from service.web.queries import NoQuery
from service.web.representations import Check, Health, Limits, Readiness, WorkerList, worker_item
from service.web.services import services

blueprint: Final = Blueprint("service_state", __name__)

TAG: Final = "Service"
_BROKER_TIMEOUT_S: Final = 1.0

_log = structlog.get_logger("tapeline.web")


@blueprint.get("/healthz")
@documented(TAG, Health)
def healthz() -> Response:
    """Say that this process lives; asks nobody else, needs no key."""
    return as_json(Health(status="ok"))


@blueprint.get("/readyz")
@documented(TAG, Readiness, also={503: Readiness})
def readyz() -> Response:
    """Say whether the service can do its work; needs no key.

    Without database or storage it is down (503). Without broker or workers it is degraded: jobs are taken, and
    wait.
    """
    checks = {
        "database": _check("down", _database),
        "storage": _check("down", services().artifacts.check_writable),
        "broker": _broker(),
    }
    if checks["database"].status == "ok":
        checks["workers"] = _workers()
    states = {check.status for check in checks.values()}
    status = "down" if "down" in states else "degraded" if "degraded" in states else "ready"
    return as_json(Readiness(status=status, checks=checks), 503 if status == "down" else 200)


@blueprint.get("/workers")
@documented(TAG, WorkerList)
def workers() -> Response:
    """List the worker processes that were seen within the last minute."""
    queries.read_query(NoQuery)
    with services().database.read() as session:
        return as_json(WorkerList(data=[worker_item(row) for row in leases.live_workers(session)]))


@blueprint.get("/limits")
@documented(TAG, Limits)
def limits() -> Response:
    """Show what a spec may ask for, and the words that it may use."""
    queries.read_query(NoQuery)
    return as_json(
        Limits(
            max_body_bytes=queries.MAX_BODY_BYTES,
            max_json_depth=validation.MAX_DEPTH,
            max_layers=spec.MAX_LAYERS,
            max_units=spec.MAX_UNITS,
            max_parameters=spec.MAX_PARAMETERS,
            max_epochs=spec.MAX_EPOCHS,
            max_batch_size=spec.MAX_BATCH,
            max_samples=_bound(spec.Sampling, "count", "le"),
            max_tags=_bound(spec.Common, "tags", "max_length"),
            priorities=[_bound(spec.Common, "priority", "ge"), _bound(spec.Common, "priority", "le")],
            kinds=list(spec.Kind),
            presets={kind: list(presets) for kind, presets in PRESETS.items()},
            default_presets=dict(DEFAULT_PRESET.items()),
            activations=list(spec.Activation),
            losses=list(spec.LossName),
            optimizers=_names(spec.Optimizer),
            schedules=_names(spec.Schedule),
            initializers=_names(spec.Initializer),
            datasets=[info.name for info in datasets.catalogue(services().settings.data) if info.problem is None],
        )
    )


def _bound(model: type[spec.Part], field: str, name: str) -> int:
    """A field's limit, from the model that checks it: one truth."""
    found = [getattr(item, name) for item in model.model_fields[field].metadata if hasattr(item, name)]
    return int(found[0])


def _names(union: Any) -> list[str]:
    """The names of a union's variants."""
    members = get_args(get_args(union)[0])
    return [get_args(member.model_fields["name"].annotation)[0] for member in members]


def _check(otherwise: str, look: Callable[[], None]) -> Check:
    try:
        look()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        # Anyone may ask this: what exactly is wrong stands in the log.
        _log.warning("not ready", error=str(error))
        return Check(status=otherwise, detail=type(error).__name__)
    return Check(status="ok")


def _database() -> None:
    with services().database.read() as session:
        session.execute(select(Job.id).limit(1)).first()


def _broker() -> Check:
    publisher = services().publisher
    if not publisher.has_broker:
        return Check(status="degraded", detail="no broker is configured; workers look for jobs by themselves")
    return _check("degraded", lambda: publisher.check_broker(_BROKER_TIMEOUT_S))


def _workers() -> Check:
    with services().database.read() as session:
        alive = leases.live_workers(session)
    if not alive:
        return Check(status="degraded", detail="no worker is alive: jobs wait")
    slots, running = sum(row.slots for row in alive), sum(row.running for row in alive)
    noun = "worker" if len(alive) == 1 else "workers"
    return Check(status="ok", detail=f"{len(alive)} {noun}, {running} of {slots} slots busy")
