"""Pages about the service: workers and the queue, keys, usage, and the audit log."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response

from service.access import adoption
from service.access.keys import Scope
from service.states import Status
from service.web.admin import service
from service.web.admin.keys import show_list as show_keys
from service.web.admin.schemas import QueueQuery
from service.web.admin.usage import show as show_usage
from service.web.core.core import core
from service.web.http.endpoint import endpoint
from service.web.http.responses import as_page

blueprint: Final = Blueprint("service_pages", __name__)

TAG: Final = "Pages"
_LIFETIMES: Final = {"": "never", "7": "in 7 days", "30": "in 30 days", "90": "in 90 days", "365": "in a year"}
_OVERLAPS: Final = {0: "at once", 3600: "in an hour", 86400: "in 24 hours", 604800: "in 7 days", 2592000: "in 30 days"}
_SCOPES: Final = {
    Scope.READ: "read: see the owner's jobs and results",
    Scope.SUBMIT: "submit: also create and change jobs and datasets",
    Scope.ADMIN: "admin: also manage keys, usage and the audit log",
}


@blueprint.get("/ui/workers")
@endpoint(TAG, "text/html", query=QueueQuery)
def workers(query: QueueQuery) -> Response:
    """Show the workers and the queue."""
    alive, queue = service.workers.read(), service.waiting.read(query)
    return as_page(
        "admin/workers.html",
        workers=alive.data,
        queue=queue,
        slots=sum(worker.slots for worker in alive.data if not worker.draining and worker.blocked is None),
        busy=sum(worker.running for worker in alive.data),
        running_limit=core().settings.quotas.running if core().settings.keys_required else 0,
        keys_required=core().settings.keys_required,
    )


@blueprint.get("/ui/keys")
@endpoint(TAG, "text/html", scope=Scope.ADMIN)
def keys() -> Response:
    """Manage API keys."""
    with core().database.read() as session:
        ownerless = adoption.count(session)
    return as_page(
        "admin/keys.html",
        keys=show_keys.read(),
        ownerless=str(ownerless),
        lifetimes=_LIFETIMES,
        scopes=_SCOPES,
        overlaps=_OVERLAPS,
    )


@blueprint.get("/ui/usage")
@endpoint(TAG, "text/html")
def used() -> Response:
    """Show usage per owner."""
    settings = core().settings
    return as_page(
        "admin/usage.html",
        usage=show_usage.read().data,
        statuses=list(Status),
        quotas=settings.quotas if settings.keys_required else None,
        keys_required=settings.keys_required,
    )
