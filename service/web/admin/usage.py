"""Usage per owner, and the audit log of all owners."""

from __future__ import annotations

from typing import Final

from flask import Blueprint

from service.access import audit, audit_seals, usage
from service.access.keys import Scope
from service.access.usage import Usage
from service.web.admin.schemas import AuditList, AuditQuery, SealList, SealsQuery, UsageItem, UsageList, usage_item
from service.web.core.core import core, owner
from service.web.gate.access_checks import sees_all
from service.web.http.endpoint import endpoint

blueprint: Final = Blueprint("usage", __name__)


@blueprint.get("/usage")
@endpoint("Administration", UsageList, page="/ui/usage")
def show() -> UsageList:
    """Show jobs, CPU time, stored bytes and remaining quotas per owner.

    Keys with the scope `admin` see all owners, other keys only their own.
    """
    return list_usage()


def list_usage() -> UsageList:
    """The usage that the caller may see."""
    with core().database.read() as session:
        return UsageList(data=[_item(item) for item in usage.read(session, owner=None if sees_all() else owner())])


def _item(item: Usage) -> UsageItem:
    quotas = core().quotas
    if item.owner is None or not core().settings.keys_required:
        return usage_item(item, requests_left=None, upload_bytes_left=None, artifact_bytes_left=None)
    limit = quotas.limits.artifacts
    return usage_item(
        item,
        requests_left=quotas.requests_left(item.owner),
        upload_bytes_left=quotas.upload_bytes_left(item.owner),
        artifact_bytes_left=max(0, limit - item.artifact_bytes - item.expected_bytes) if limit else None,
    )


audit_blueprint: Final = Blueprint("audit", __name__)


@audit_blueprint.get("/audit", endpoint="show")
@endpoint("Administration", AuditList, scope=Scope.ADMIN, query=AuditQuery)
def show_audit(query: AuditQuery) -> AuditList:
    """Show the audit log, newest first. Requires the scope `admin`."""
    with core().database.read() as session:
        rows = audit.read(session, **query.model_dump(exclude={"limit"}), limit=query.limit + 1)
    return AuditList.of(rows, limit=query.limit)


@audit_blueprint.get("/audit/seals")
@endpoint("Administration", SealList, scope=Scope.ADMIN, query=SealsQuery)
def show_seals(query: SealsQuery) -> SealList:
    """Show the seals of the audit log, newest first. Requires the scope `admin`.

    The digest of the newest seal is the head of the chain. A copy of it that is stored elsewhere reveals a rebuilt
    chain (`tapeline audit verify --head`).
    """
    with core().database.read() as session:
        seals = audit_seals.newest(session, before=query.before, limit=query.limit + 1)
    return SealList.of(seals, limit=query.limit)
