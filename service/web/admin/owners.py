"""Owners: their settings, and what they use now. All endpoints require the scope ``admin``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from flask import Blueprint
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.access import owners
from service.access.keys import Scope
from service.jobs import actions, worker_registry
from service.jobs.request_bodies import OwnerPatch
from service.storage.owner_tables import OwnerQueue
from service.web.admin.owner_schemas import OwnerItem, OwnerList, OwnersQuery
from service.web.core.core import core
from service.web.gate.access_checks import actor, named_owner
from service.web.http.endpoint import endpoint
from service.web.http.path_parameters import PathParameter

blueprint: Final = Blueprint("owners", __name__)

TAG: Final = "Administration"
OWNER_ID: Final = PathParameter("owner_id", "An owner's id; `-` stands for everybody without a key.", "ann")


@blueprint.get("/owners")
@endpoint(TAG, OwnerList, query=OwnersQuery, scope=Scope.ADMIN, page="/ui/owners", client="owners")
def show_list(query: OwnersQuery) -> OwnerList:
    """List owners: their settings, limits and jobs. Requires the scope `admin`.

    An owner is known by a key, a job or its own settings. They are sorted by name; `-`, the last, stands for everybody
    without a key, if there are jobs or settings of theirs.
    """
    with core().database.read() as session:
        names, next_cursor = query.page_of(owners.listed(session))
        return OwnerList(data=_items(session, names), has_more=next_cursor is not None, next_cursor=next_cursor)


def busiest(limit: int) -> list[OwnerItem]:
    """The owners with most running and queued jobs."""
    count = OwnerQueue.running + OwnerQueue.queued
    query = select(OwnerQueue.owner).where(count > 0).order_by(count.desc(), OwnerQueue.owner).limit(limit)
    with core().database.read() as session:
        return _items(session, session.scalars(query).all())


@blueprint.get("/owners/<owner_id>")
@endpoint(TAG, OwnerItem, scope=Scope.ADMIN, problems=("owner_not_found",), client="owner")
def show(owner_id: str) -> OwnerItem:
    """Show an owner, named by its id or its display name. Requires the scope `admin`."""
    return _item(named_owner(owner_id))


@blueprint.patch("/owners/<owner_id>")
@endpoint(
    TAG,
    OwnerItem,
    scope=Scope.ADMIN,
    body=OwnerPatch,
    body_media="application/merge-patch+json",
    problems=("owner_not_found", "cap_exceeded"),
    client="change_owner",
)
def change(owner_id: str, body: OwnerPatch) -> OwnerItem:
    """Change an owner's name, weight, cap, highest priority or quotas. Requires the scope `admin`.

    Null sets the default of the service again. A change takes effect within two seconds, without a restart. A lower
    highest priority lowers that of unfinished jobs.
    """
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    owner = named_owner(owner_id)
    owners.change(core().database, owner, changes, by=actor())
    if "max_priority" in changes:
        actions.lower_priorities(core().database, owner, by=actor())
    return _item(owner)


def _item(owner: str) -> OwnerItem:
    with core().database.read() as session:
        return _items(session, [owner])[0]


def _items(session: Session, names: Sequence[str]) -> list[OwnerItem]:
    """Owners, read with the same number of queries for any number of them."""
    slots = sum(worker.slots for worker in worker_registry.claiming_workers(session))
    has_jobs = OwnerQueue.running + OwnerQueue.queued > 0
    active = session.scalar(select(func.sum(OwnerQueue.weight)).where(has_jobs)) or 0.0
    rows = {row.owner: row for row in session.scalars(select(OwnerQueue).where(OwnerQueue.owner.in_(names)))}
    settings = owners.settings_of(session, names)
    items = []
    for name in names:
        row, own = rows.get(name), settings.get(name)
        weight = own.weight if own is not None else 1.0
        others = 0.0 if row is not None and (row.running or row.queued) else weight
        limits = owners.limits_of(own, name or None, core().settings.quotas)
        items.append(OwnerItem.of(name, own, limits, row, slots * weight / (active + others)))
    return items
