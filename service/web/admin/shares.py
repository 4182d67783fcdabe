"""Share links, and links that sign a browser in once."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from flask import Blueprint, Response, current_app, g, request

from service.access import owners, shares, sign_in_links
from service.access.shares import Shared
from service.errors import Fault, ShareNotFound, SpecError
from service.jobs.request_bodies import ShareRequest
from service.web.admin.owner_schemas import NewShare, ShareItem, ShareList
from service.web.admin.sessions import set_session
from service.web.core.core import core, owner
from service.web.gate.access_checks import (
    MAX_OPENED,
    SHARES,
    actor,
    browser,
    find_share,
    named_actor,
    named_link,
    sees_all,
    shares_of_cookie,
)
from service.web.http.endpoint import PUBLIC, Result, endpoint
from service.web.http.path_parameters import PathParameter
from service.web.http.queries import OtherOwner, Query
from service.web.http.responses import as_page, prefers_html, see_other

blueprint: Final = Blueprint("shares", __name__)

TAG: Final = "Sharing"
SHARE_ID: Final = PathParameter(
    "share_id",
    "A share link's id, such as `shr_0123456789ab`; not its token.",
    "shr_0123456789ab",
    not_found=lambda path: ShareNotFound(),
)
TOKEN: Final = PathParameter("token", "The token of a link, which is a secret.", "tsh_0123456789ab_" + "0" * 64)


class SharesQuery(Query):
    """Whose links to list."""

    owner: OtherOwner = None


@blueprint.post("/shares")
@endpoint(TAG, NewShare, status=201, body=ShareRequest)
def create(body: ShareRequest) -> Result:
    """Create a link with which anybody may read a job, a sweep or a comparison, without a key.

    It shows metrics, plots, settings and files of the model, but never examples of the dataset, and permits no change.
    The token is only in this response: store it, or create another link.
    """
    row, token = shares.create(
        core().database, body.path, owner=owner(), expires_ms=_expiry_ms(body.expires_at), by=actor()
    )
    item = NewShare.from_row(row, token=token, url=f"{request.host_url}shared/{token}")
    return item, {"Location": f"/shares/{row.id}"}


@blueprint.get("/shares")
@endpoint(TAG, ShareList, query=SharesQuery, problems=("owner_not_found",), client="shares")
def show_list(query: SharesQuery) -> ShareList:
    """List the links that are valid, the newest first, without their tokens."""
    with core().database.read() as session:
        return ShareList(data=[ShareItem.from_row(row) for row in shares.all_of(session, owner())])


@blueprint.delete("/shares/<share_id>")
@endpoint(TAG, None, status=204, problems=("share_not_found",), client="revoke_share")
def revoke(share_id: str) -> None:
    """Revoke a link; with the scope `admin`, also one of another owner. It stops working at once, also for streams
    within two seconds."""
    shares.revoke(core().database, share_id, owner=None if sees_all() else owner(), by=actor())


@blueprint.get("/shared/<token>")
@endpoint(TAG, "application/json", scope=PUBLIC, problems=("share_not_found", "rate_limited"))
def show(token: str) -> Response:
    """Show what a link shares. A browser is redirected to its page.

    Programs may also send the token as a key (`Authorization: Bearer`) to read the parts, such as `/jobs/{id}/metrics`.
    """
    shared = named_link(token, find_share)
    core().quotas.request(shared.identity.key_id)
    is_page = shared.path.startswith("/compare?")
    if prefers_html() or is_page:
        return _open(f"/ui{shared.path}" if is_page else shared.path, token)
    return _read(shared)


def _open(path: str, token: str) -> Response:
    """The page, which the browser may read with the cookie."""
    opened = [other for other in shares_of_cookie(request.cookies.get(SHARES)) if other != token]
    response = see_other(path)
    cookie = ".".join([*opened, token][-MAX_OPENED:])
    response.set_cookie(SHARES, cookie, path="/", httponly=True, samesite="Lax", secure=request.is_secure)
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


@blueprint.get("/ui/welcome/<token>")
@endpoint("Pages", "text/html", scope=PUBLIC, problems=("link_not_usable", "rate_limited"))
def welcome(token: str) -> Response:
    """Show whom a sign-in link signs in, with a button: programs that preview links must not use it up."""
    g.browser = signed_in = browser()
    if signed_in is not None:
        with core().database.read() as session:
            if sign_in_links.was_used_by(session, token, signed_in.owner):
                return as_page("admin/welcome.html", name=signed_in.display_name)
    caller = named_link(token, sign_in_links.find)
    core().quotas.request(caller.key_id)
    with core().database.read() as session:
        name = owners.display_name(session, caller.owner)
    return as_page("admin/welcome.html", name=name, token=token, is_other=signed_in and signed_in.owner != caller.owner)


@blueprint.post("/session/<token>")
@endpoint(TAG, None, status=204, scope=PUBLIC, problems=("link_not_usable", "rate_limited"))
def use(token: str) -> Response:
    """Sign a browser in by a link, which then cannot be used again."""
    caller = named_link(token, sign_in_links.find)  # first: one that cannot be used opens no write transaction
    core().quotas.sign_in(caller.key_id)
    _, cookie = sign_in_links.use(core().database, token, by=named_actor(caller))
    response = Response(status=204)
    set_session(response, cookie, max_age=sign_in_links.SESSION_S)
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
