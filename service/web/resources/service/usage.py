"""Usage per owner."""

from __future__ import annotations

from typing import Final

from flask import Blueprint

from service.access import usage
from service.access.usage import Usage
from service.web.core.core import core, owner
from service.web.gate.access_checks import sees_all
from service.web.http.endpoint import endpoint
from service.web.schemas.access import UsageItem, UsageList, usage_item

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
