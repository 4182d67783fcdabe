"""API keys: list, create, rotate and revoke them. All endpoints require the scope ``admin``."""

from __future__ import annotations

from typing import Final

from flask import Blueprint
from sqlalchemy import select

from service.access import keys
from service.access.keys import Scope
from service.errors import KeyNotFound
from service.jobs.request_bodies import KeyRequest, KeyRotation
from service.storage.database import now_ms
from service.storage.tables import ApiKey
from service.web.admin.schemas import KeyItem, KeyList, NewKey, RotatedKey, key_item
from service.web.core.core import core
from service.web.gate.access_checks import actor
from service.web.http.endpoint import Result, endpoint
from service.web.http.path_parameters import PathParameter
from service.web.http.problems import Problem

blueprint: Final = Blueprint("keys", __name__)

TAG: Final = "Administration"
KEY_ID: Final = PathParameter(
    "key_id",
    "A key's id, such as `key_0123456789ab`; not the key itself.",
    "key_0123456789ab",
    not_found=lambda path: KeyNotFound(path["key_id"][:60]),
)
_MAX_ID_LENGTH: Final = 40
"""Maximum length of an id in characters; longer ones are unknown and are truncated in errors."""
_DAY_S: Final = 24 * 60 * 60


@blueprint.get("/keys")
@endpoint(TAG, KeyList, scope=Scope.ADMIN, page="/ui/keys", client="api_keys", client_returns_data=True)
def show_list() -> KeyList:
    """List all API keys, without their secrets."""
    with core().database.read() as session:
        now = session.scalar(select(now_ms())) or 0
        last_recorded = keys.last_recorded(session)
        data = [key_item(row, now=now, last_ms=last_recorded.get(row.id)) for row in keys.all_keys(session)]
    settings = core().settings
    return KeyList(data=data, of_settings=len(settings.api_keys), required=settings.keys_required)


@blueprint.post("/keys")
@endpoint(TAG, NewKey, status=201, scope=Scope.ADMIN, body=KeyRequest, problems=("keys_not_required",))
def create(body: KeyRequest) -> Result:
    """Create an API key.

    The key itself is only in this response: store it. A service that does not require keys refuses this request:
    otherwise, anyone who reaches the service could create keys for later use.
    """
    _require_keys()
    lifetime_s = body.lifetime_days * _DAY_S if body.lifetime_days is not None else None
    row, key = keys.create(
        core().database, name=body.name, owner=body.owner, scope=body.scope, lifetime_s=lifetime_s, by=actor()
    )
    item = NewKey(**key_item(row, now=row.created_ms).model_dump(), key=key)
    return item, {"Location": f"/keys/{row.id}"}


@blueprint.get("/keys/<key_id>")
@endpoint(TAG, KeyItem, scope=Scope.ADMIN, problems=("key_not_found",))
def show(key_id: str) -> KeyItem:
    """Show an API key, without its secret."""
    return _item(key_id)


@blueprint.post("/keys/<key_id>/rotate")
@endpoint(
    TAG,
    RotatedKey,
    status=201,
    scope=Scope.ADMIN,
    body=KeyRotation,
    problems=("key_not_found", "key_not_rotatable", "keys_not_required"),
    client="rotate_key",
)
def rotate(key_id: str, body: KeyRotation) -> Result:
    """Rotate an API key: create its successor, and let it expire after an overlap.

    The new key has the same name, owner and scope; if the old one expires, the new one gets the same lifetime from now
    on. The old key stays valid for `overlap_s`, but never longer than before, so that programs can be changed one by
    one. A key is rotated once: afterwards rotate its successor. The new key itself is only in this response, which is
    not stored: if it was lost, rotate the successor, `replaced_by`, with `overlap_s` 0.
    """
    _require_keys()
    row, old, key = keys.rotate(core().database, key_id[:_MAX_ID_LENGTH], overlap_s=body.overlap_s, by=actor())
    replaces = _item(old.id)
    item = RotatedKey(**key_item(row, now=row.created_ms).model_dump(), key=key, replaces=replaces)
    return item, {"Location": f"/keys/{row.id}"}


@blueprint.post("/keys/<key_id>/revoke")
@endpoint(TAG, KeyItem, status=202, scope=Scope.ADMIN, problems=("key_not_found", "keys_not_required"))
def revoke(key_id: str) -> KeyItem:
    """Revoke an API key.

    It takes effect within two seconds and ends browser sessions of the key. Revoking a key again changes nothing.
    """
    _require_keys()
    row = keys.revoke_id(core().database, key_id[:_MAX_ID_LENGTH], by=actor())
    return _item(row.id)


def _require_keys() -> None:
    """Refuse changes while the service requires no keys: anyone could create a key for later use."""
    if not core().settings.keys_required:
        raise Problem("keys_not_required", "keys can be changed here once the service requires them")


def _item(key_id: str) -> KeyItem:
    with core().database.read() as session:
        row: ApiKey = keys.find(session, key_id[:_MAX_ID_LENGTH])
        now = session.scalar(select(now_ms())) or 0
        return key_item(row, now=now, last_ms=keys.last_recorded(session, row.id).get(row.id))
