"""Links that sign a browser in once."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, g

from service.access import owners, sign_in_links
from service.web.admin.sessions import set_session
from service.web.core.core import core
from service.web.gate.access_checks import browser, named_actor, named_link
from service.web.http.endpoint import PUBLIC, endpoint
from service.web.http.path_parameters import PathParameter
from service.web.http.responses import as_page

blueprint: Final = Blueprint("sign_in_links", __name__)

TAG: Final = "Sharing"
TOKEN: Final = PathParameter("token", "The token of a link, which is a secret.", "tsh_0123456789ab_" + "0" * 64)


@blueprint.get("/ui/welcome/<token>")
@endpoint("Pages", "text/html", scope=PUBLIC, problems=("link_not_usable", "rate_limited"), name="shares.welcome")
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
@endpoint(TAG, None, status=204, scope=PUBLIC, problems=("link_not_usable", "rate_limited"), name="shares.use")
def use(token: str) -> Response:
    """Sign a browser in by a link, which then cannot be used again."""
    caller = named_link(token, sign_in_links.find)  # first: one that cannot be used opens no write transaction
    core().quotas.sign_in(caller.key_id)
    _, cookie = sign_in_links.use(core().database, token, by=named_actor(caller))
    response = Response(status=204)
    set_session(response, cookie, max_age=sign_in_links.SESSION_S)
    return response
