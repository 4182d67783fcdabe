"""Share links: create, list, revoke and open them."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from flask import Blueprint, Response, current_app, g, request

from service.access.shares import Shared
from service.errors import Fault, SpecError
from service.features.sharing import links
from service.features.sharing.errors import ShareNotFound
from service.features.sharing.gate import GATE
from service.features.sharing.schemas import NewShare, ShareItem, ShareList, ShareRequest, SharesQuery
from service.web.core.core import core, owner
from service.web.core.rooms import Operations
from service.web.gate.access_checks import actor, find_link, named_link, sees_all
from service.web.http.endpoint import PUBLIC, Result, endpoint
from service.web.http.path_parameters import PathParameter
from service.web.http.responses import prefers_html, see_other

blueprint: Final = Blueprint("shares", __name__)

TAG: Final = "Sharing"
SHARE_ID: Final = PathParameter(
    "share_id",
    "A share link's id, such as `shr_0123456789ab`; not its token.",
    "shr_0123456789ab",
    not_found=lambda path: ShareNotFound(),
)


@blueprint.post("/shares")
@endpoint(TAG, NewShare, status=201, body=ShareRequest)
def create(body: ShareRequest) -> Result:
    """Create a link with which anybody may read a job, a sweep or a comparison, without a key.

    It shows metrics, plots, settings and files of the model, but never examples of the dataset, and permits no change.
    The token is only in this response: store it, or create another link.
    """
    row, token = links.create(
        core().database, body.path, owner=owner(), expires_ms=_expiry_ms(body.expires_at), by=actor()
    )
    item = NewShare.from_row(row, token=token, url=f"{request.host_url}shared/{token}")
    return item, {"Location": f"/shares/{row.id}"}


@blueprint.get("/shares")
@endpoint(TAG, ShareList, query=SharesQuery, problems=("owner_not_found",), client="shares")
def show_list(query: SharesQuery) -> ShareList:
    """List the links that are valid, the newest first, without their tokens."""
    with core().database.read() as session:
        return ShareList(data=[ShareItem.from_row(row) for row in links.all_of(session, owner())])


@blueprint.delete("/shares/<share_id>")
@endpoint(TAG, None, status=204, problems=("share_not_found",), client="revoke_share")
def revoke(share_id: str) -> None:
    """Revoke a link; with the scope `admin`, also one of another owner. It stops working at once, also for streams
    within two seconds."""
    links.revoke(core().database, share_id, owner=None if sees_all() else owner(), by=actor())


@blueprint.get("/shared/<token>")
@endpoint(TAG, "application/json", scope=PUBLIC, problems=("share_not_found", "rate_limited"))
def show(token: str) -> Response:
    """Show what a link shares. A browser is redirected to its page.

    Programs may also send the token as a key (`Authorization: Bearer`) to read the parts, such as `/jobs/{id}/metrics`.
    """
    shared = named_link(token, lambda session, text: find_link(session, GATE, text))
    core().quotas.request(shared.identity.key_id)
    is_page = shared.path.startswith("/compare?")
    if prefers_html() or is_page:
        return _open(f"/ui{shared.path}" if is_page else shared.path, token)
    return _read(shared)


def _open(path: str, token: str) -> Response:
    """The page, which the browser may read with the cookie."""
    opened = [other for other in GATE.opened(request.cookies.get(GATE.cookie)) if other != token]
    response = see_other(path)
    cookie = ".".join([*opened, token][-GATE.max_opened :])
    response.set_cookie(GATE.cookie, cookie, path="/", httponly=True, samesite="Lax", secure=request.is_secure)
    return response


def _read(shared: Shared) -> Response:
    """What the API responds at the path of a link."""
    with current_app.test_request_context(shared.path, base_url=request.host_url):
        g.share, g.identity, g.counted_for = shared, shared.identity, shared.identity.key_id
        g.owner = shared.identity.owner if core().settings.keys_required else None
        view_args = request.view_args or {}
        response: Response = current_app.ensure_sync(current_app.view_functions[request.endpoint or ""])(**view_args)
    response.headers.pop("ETag", None)  # of another address
    return response


def _expiry_ms(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        detail = "must be a time with a time zone, such as 2027-01-31T12:00:00Z"
        raise SpecError([Fault(pointer="#/expires_at", detail=detail, code="invalid")])
    return int(time.timestamp() * 1000)


OPERATIONS: Final = Operations(blueprint=blueprint)
