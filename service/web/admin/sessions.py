"""Sign-in: a browser exchanges a key for a session cookie that scripts cannot read."""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, Response, request

from service.access import keys
from service.access.keys import Identity
from service.jobs.request_bodies import SignIn
from service.web.admin.schemas import SessionItem, session_item
from service.web.core.core import core
from service.web.gate.access_checks import COOKIE, checked_key, identity, named_actor
from service.web.http.endpoint import PUBLIC, endpoint
from service.web.http.problems import Problem
from service.web.http.responses import as_json, as_page

blueprint: Final = Blueprint("sessions", __name__)

TAG: Final = "Service"
_COOKIE_SCOPE: Final[dict[str, Any]] = {"path": "/", "httponly": True, "samesite": "Strict"}
_MAX_SIGN_IN_BYTES: Final = 4096
"""Keys have fewer than a hundred characters, and this endpoint is public."""


@blueprint.post("/session")
@endpoint(
    TAG,
    SessionItem,
    status=201,
    scope=PUBLIC,
    body=SignIn,
    max_body_bytes=_MAX_SIGN_IN_BYTES,
    problems=("key_required", "rate_limited"),
)
def sign_in(body: SignIn) -> Response:
    """Sign a browser in.

    The key is exchanged for a session cookie with the key's scope. It expires after twelve hours, or with the key.
    """
    caller = _identify(body.key.strip())
    core().quotas.sign_in(caller.key_id)
    signed_in, token = keys.sign_in(core().database, caller, by=named_actor(caller))
    response = as_json(session_item(signed_in), 201)
    set_session(response, token, max_age=keys.SESSION_S)
    return response


def set_session(response: Response, token: str, *, max_age: int) -> None:
    """Set the cookie of a browser's session."""
    # If a proxy terminates TLS, only the Origin header shows it; the access checks have compared it with the host name.
    is_behind_tls = request.is_secure or request.headers.get("Origin", "").startswith("https://")
    response.set_cookie(COOKIE, token, max_age=max_age, secure=is_behind_tls, **_COOKIE_SCOPE)


@blueprint.get("/session")
@endpoint(TAG, SessionItem)
def show() -> SessionItem:
    """Show the owner, scope and name of the key behind this request."""
    return session_item(identity())


@blueprint.delete("/session")
@endpoint(TAG, None, status=204, scope=PUBLIC)
def sign_out() -> Response:
    """Sign a browser out: its session ends."""
    token = request.cookies.get(COOKIE)
    caller = core().keyring.by_cookie(token) if token is not None else None
    if token is not None and caller is not None and caller.session_id is not None:
        keys.sign_out(core().database, caller.session_id, by=named_actor(caller))
        core().keyring.forget(token)
    response = Response(status=204)
    response.delete_cookie(COOKIE, **_COOKIE_SCOPE)
    return response


@blueprint.get("/ui/sign-in")
@endpoint("Pages", "text/html", scope=PUBLIC)
def page() -> Response:
    """Show the sign-in form."""
    return as_page("admin/sign_in.html")


def _identify(key: str) -> Identity:
    """The identity behind a key. The first use of a wrong key is recorded in the audit log, repetitions are not:
    strangers must not fill it.

    Raises:
        Problem: the key is not valid, or this address has sent too many invalid ones.
    """
    is_new = not core().keyring.was_refused(key)
    try:
        return checked_key(key)
    except Problem as problem:
        if problem.code == "key_required" and is_new:
            keys.record_failed_sign_in(core().database, by=named_actor(None))
        raise
