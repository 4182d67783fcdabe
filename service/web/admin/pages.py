"""Pages about the service: workers, the queue, owners, keys and usage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from flask import Blueprint, Response

from service.access import adoption
from service.access.keys import Scope
from service.access.owners import EVERYBODY, display_names, limits_of
from service.access.usage import QUOTA_DAYS
from service.jobs import worker_registry
from service.jobs.queries import queue
from service.jobs.queries.queue import Waiting
from service.owner_limits import arranged
from service.spec.metric_info import duration
from service.states import Status
from service.web.admin import service
from service.web.admin.keys import show_list as show_keys
from service.web.admin.owner_schemas import OwnerLimits, OwnersQuery
from service.web.admin.owners import busiest
from service.web.admin.owners import show_list as show_owners
from service.web.admin.schemas import QueueQuery, UsageDay, UsageItem
from service.web.admin.usage import show as show_usage
from service.web.core.core import core
from service.web.gate.access_checks import sees_all
from service.web.http.endpoint import endpoint
from service.web.http.responses import as_page, next_address
from service.web.http.templates import NOTHING, plain

blueprint: Final = Blueprint("service_pages", __name__)

TAG: Final = "Pages"
_LIFETIMES: Final = {"": "never", "7": "in 7 days", "30": "in 30 days", "90": "in 90 days", "365": "in a year"}
_OVERLAPS: Final = {0: "at once", 3600: "in an hour", 86400: "in 24 hours", 604800: "in 7 days", 2592000: "in 30 days"}
_SCOPES: Final = {
    Scope.READ: "read: see the owner's jobs and results",
    Scope.SUBMIT: "submit: also create and change jobs and datasets",
    Scope.ADMIN: "admin: also manage keys, usage and the audit log",
}
_KEY_CHOICES: Final[dict[str, Any]] = {"lifetimes": _LIFETIMES, "scopes": _SCOPES, "overlaps": _OVERLAPS}
_MAX_BUSY_OWNERS: Final = 50
_OWNER_FIELDS: Final = arranged(
    ("weight", "running_jobs", "max_priority", "queued_jobs", "cpu_seconds", "requests_per_minute", "streams")
)


@blueprint.get("/ui/workers")
@endpoint(TAG, "text/html")
def workers() -> Response:
    """Show the workers."""
    return as_page("admin/workers.html", **_workers(), keys_required=core().settings.keys_required)


def _names(owners: Iterable[str | None]) -> dict[str, str]:
    """The names of these owners for people, of those who have one."""
    with core().database.read() as session:
        return display_names(session, {owner for owner in owners if owner})


def _workers() -> dict[str, Any]:
    alive = service.workers.read().data
    with core().database.read() as session:
        impediment = worker_registry.impediment(session, core().settings)
        queued = sum(queue.waiting_by_owner(session).values())
    names = _names(job.owner for worker in alive for job in worker.jobs)
    slots = sum(worker.slots for worker in alive if not worker.draining and worker.blocked is None)
    busy = sum(worker.running for worker in alive)
    return {"workers": alive, "names": names, "queued": queued, "impediment": impediment, "slots": slots, "busy": busy}


@blueprint.get("/ui/queue")
@endpoint(TAG, "text/html", query=QueueQuery, problems=("owner_not_found",))
def waiting(query: QueueQuery) -> Response:
    """Show the caller's queued jobs: their places, and why they wait."""
    keys_required, (head, impediment) = core().settings.keys_required, service.read_queue(query.limit)
    return as_page(
        "admin/queue.html",
        queue=head,
        names=_names(item.job.owner for item in head.waiting),
        impediment=impediment,
        expected=_expected_start,
        owners=busiest(_MAX_BUSY_OWNERS) if keys_required and sees_all() else [],
        keys_required=keys_required,
    )


def _expected_start(item: Waiting) -> str:
    start_s = item.start_in_s
    return NOTHING if start_s is None else "now" if start_s < 1 else f"in about {duration(start_s)}"


@blueprint.get("/ui/owners")
@endpoint(TAG, "text/html", query=OwnersQuery, scope=Scope.ADMIN)
def owners(query: OwnersQuery) -> Response:
    """Manage owners."""
    settings, page = core().settings, show_owners.read(query)
    return as_page(
        "admin/owners.html",
        owners=page.data,
        next_address=next_address(page.next_cursor),
        fields=_OWNER_FIELDS,
        defaults={is_everybody: _owner_defaults(is_everybody=is_everybody) for is_everybody in (False, True)},
        keys_required=settings.keys_required,
    )


def _owner_defaults(*, is_everybody: bool) -> dict[str, str]:
    """What applies to an owner who has no settings of their own, by the name of the field."""
    anybody = EVERYBODY if is_everybody else "anybody"
    limits = OwnerLimits.of(limits_of(None, anybody, core().settings.quotas)).model_dump()
    return {name: "no limit" if value is None else plain(value) for name, value in limits.items()}


@blueprint.get("/ui/keys")
@endpoint(TAG, "text/html", scope=Scope.ADMIN)
def keys() -> Response:
    """Manage API keys."""
    listed = show_keys.read()
    with core().database.read() as session:
        ownerless = adoption.count(session)
    return as_page(
        "admin/keys.html",
        keys=listed,
        names=_names(key.owner for key in listed.data),
        ownerless=str(ownerless),
        **_KEY_CHOICES,
    )


@blueprint.get("/ui/usage")
@endpoint(TAG, "text/html", query=OwnersQuery)
def used(query: OwnersQuery) -> Response:
    """Show usage per owner."""
    settings, page = core().settings, show_usage.read(query)
    return as_page(
        "admin/usage.html",
        usage=page.data,
        next_address=next_address(page.next_cursor),
        **_of_owners(page.data),
        statuses=list(Status),
        quotas=settings.quotas if settings.keys_required else None,
        keys_required=settings.keys_required,
    )


def _of_owners(usage: Sequence[UsageItem]) -> dict[str, Any]:
    """The names of owners, and what they have used per day and have left."""
    history = {item.owner: (_days(item.days), _cpu_left(item)) for item in usage}
    return {"names": _names(item.owner for item in usage), "history": history}


def _days(used: Sequence[UsageDay]) -> list[UsageDay]:
    """The last 30 days, also those on which nothing was used."""
    by_date, today = {day.date: day for day in used}, datetime.now(UTC).date()
    dates = ((today - timedelta(days=back)).isoformat() for back in reversed(range(QUOTA_DAYS)))
    return [
        by_date.get(date) or UsageDay(date=date, jobs=0, cpu_seconds=0, slot_seconds=0, bytes=None) for date in dates
    ]


def _cpu_left(item: UsageItem) -> tuple[float, int] | None:
    """The CPU seconds that an owner has left of the quota of 30 days, and the quota; ``None``: no limit."""
    limit = core().quotas.of(item.owner).quotas.cpu_seconds if item.owner and core().settings.keys_required else 0
    return (max(0.0, limit - sum(day.cpu_seconds for day in item.days)), limit) if limit else None
