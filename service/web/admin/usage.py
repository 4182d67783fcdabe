"""Usage per owner, and the audit log of all owners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from flask import Blueprint
from sqlalchemy.orm import Session

from service.access import audit, audit_seals, usage
from service.access.audit_chain import Seal
from service.access.keys import Scope
from service.access.usage import Usage
from service.storage.tables import AuditEntry
from service.web.admin.owner_schemas import OwnersQuery
from service.web.admin.schemas import AuditList, AuditQuery, SealList, SealsQuery, UsageDay, UsageItem, UsageList
from service.web.core.core import core, owner
from service.web.gate.access_checks import sees_all
from service.web.http.endpoint import endpoint

blueprint: Final = Blueprint("usage", __name__)


@blueprint.get("/usage")
@endpoint("Administration", UsageList, query=OwnersQuery, page="/ui/usage")
def show(query: OwnersQuery) -> UsageList:
    """Show jobs, CPU time, stored bytes and remaining quotas per owner.

    Keys with the scope `admin` see all owners, other keys only their own.
    """
    name = None if sees_all() else owner()
    with core().database.read() as session:
        items, next_cursor = query.page_of(usage.read(session, owner=name))
        core().quotas.read_ahead(session, [item.owner for item in items if item.owner])
        days = _days(session, [item.owner or "" for item in items])
    data = [_item(item, days[item.owner or ""]) for item in items]
    return UsageList(data=data, has_more=next_cursor is not None, next_cursor=next_cursor)


def _days(session: Session, owners: Sequence[str]) -> Mapping[str, list[UsageDay]]:
    days: dict[str, list[UsageDay]] = {owner: [] for owner in owners}
    for row in usage.history(session, owners):
        date = datetime.fromtimestamp(row.day * usage.DAY_MS / 1000, UTC).date().isoformat()
        days[row.owner].append(UsageDay.from_row(row, date=date))
    return days


def _item(item: Usage, days: list[UsageDay]) -> UsageItem:
    quotas, limited = core().quotas, item.owner if core().settings.keys_required else None
    limit = quotas.of(limited).quotas.artifacts if limited is not None else 0
    artifact_bytes_left = max(0, limit - item.artifact_bytes - item.expected_bytes)
    return UsageItem.from_row(
        item,
        cpu_seconds=round(item.cpu_seconds, 1),
        days=days,
        requests_left=quotas.requests_left(limited) if limited is not None else None,
        upload_bytes_left=quotas.upload_bytes_left(limited) if limited is not None else None,
        artifact_bytes_left=artifact_bytes_left if limited is not None and limit else None,
    )


audit_blueprint: Final = Blueprint("audit", __name__)


@audit_blueprint.get("/audit", endpoint="show")
@endpoint("Administration", AuditList, scope=Scope.ADMIN, query=AuditQuery)
def show_audit(query: AuditQuery) -> AuditList:
    """Show the audit log, newest first. Requires the scope `admin`."""
    with core().database.read() as session:
        rows = audit.read(
            session,
            owner=query.owner,
            action=query.action,
            subject=query.subject,
            before=query.last_id,
            limit=query.limit + 1,
        )
    return AuditList.model_validate(_page(rows, query.limit))


@audit_blueprint.get("/audit/seals")
@endpoint("Administration", SealList, scope=Scope.ADMIN, query=SealsQuery)
def show_seals(query: SealsQuery) -> SealList:
    """Show the seals of the audit log, newest first. Requires the scope `admin`.

    The digest of the newest seal is the head of the chain. A copy of it that is stored elsewhere reveals a rebuilt
    chain (`tapeline audit verify --head`).
    """
    with core().database.read() as session:
        seals = audit_seals.newest(session, before=query.last_id, limit=query.limit + 1)
    return SealList.model_validate(_page(seals, query.limit))


def _page(rows: Sequence[AuditEntry] | Sequence[Seal], limit: int) -> dict[str, Any]:
    """Up to ``limit`` of the rows, which are one more if there is a next page."""
    last_id = rows[limit - 1].id if len(rows) > limit else None
    return {
        "data": rows[:limit],
        "next_cursor": None if last_id is None else str(last_id),
        "next_before": last_id,
    }
