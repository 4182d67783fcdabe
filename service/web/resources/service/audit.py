"""The audit log of all owners."""

from __future__ import annotations

from typing import Final

from flask import Blueprint

from service.access import audit, audit_seals
from service.access.keys import Scope
from service.web.core.core import core
from service.web.http.endpoint import endpoint
from service.web.schemas.access import AuditList, SealList
from service.web.schemas.queries import AuditQuery, SealsQuery

blueprint: Final = Blueprint("audit", __name__)


@blueprint.get("/audit")
@endpoint("Administration", AuditList, scope=Scope.ADMIN, query=AuditQuery)
def show(query: AuditQuery) -> AuditList:
    """Show the audit log, newest first. Requires the scope `admin`."""
    with core().database.read() as session:
        rows = audit.read(session, **query.model_dump(exclude={"limit"}), limit=query.limit + 1)
    return AuditList.of(rows, limit=query.limit)


@blueprint.get("/audit/seals")
@endpoint("Administration", SealList, scope=Scope.ADMIN, query=SealsQuery)
def show_seals(query: SealsQuery) -> SealList:
    """Show the seals of the audit log, newest first. Requires the scope `admin`.

    The digest of the newest seal is the head of the chain. A copy of it that is stored elsewhere reveals a rebuilt
    chain (`tapeline audit verify --head`).
    """
    with core().database.read() as session:
        seals = audit_seals.newest(session, before=query.before, limit=query.limit + 1)
    return SealList.of(seals, limit=query.limit)
