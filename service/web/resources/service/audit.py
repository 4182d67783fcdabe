"""The audit log of all owners."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response

from service.access import audit, audit_seals
from service.access.keys import Scope
from service.web.answers import as_json
from service.web.openapi.operations import documented
from service.web.schemas import queries
from service.web.schemas.queries import AuditQuery, SealsQuery
from service.web.schemas.representations import AuditList, SealList, audit_item, seal_item
from service.web.services import services

blueprint: Final = Blueprint("audit", __name__)


@blueprint.get("/audit")
@documented("Administration", AuditList, scope=Scope.ADMIN, query=AuditQuery)
def show() -> Response:
    """Show the audit log, newest first. Requires the scope `admin`."""
    query = queries.read_query(AuditQuery)
    with services().database.read() as session:
        rows = audit.read(
            session,
            owner=query.owner,
            action=query.action,
            subject=query.subject,
            before=query.before,
            limit=query.limit + 1,
        )
    shown = [audit_item(row) for row in rows[: query.limit]]
    return as_json(AuditList(data=shown, next_before=shown[-1].id if len(rows) > query.limit else None))


@blueprint.get("/audit/seals")
@documented("Administration", SealList, scope=Scope.ADMIN, query=SealsQuery)
def show_seals() -> Response:
    """Show the seals of the audit log, newest first. Requires the scope `admin`.

    The digest of the newest seal is the head of the chain: kept elsewhere, it reveals that the chain was computed anew
    (`tapeline audit verify --head`).
    """
    query = queries.read_query(SealsQuery)
    with services().database.read() as session:
        seals = audit_seals.newest(session, before=query.before, limit=query.limit + 1)
    shown = [seal_item(seal) for seal in seals[: query.limit]]
    return as_json(SealList(data=shown, next_before=shown[-1].id if len(seals) > query.limit else None))
