"""Access checks: host name, origin, API key and form of ids. Loopback is not authentication."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from flask import Flask, current_app, g, request

from service.access.audit import Actor
from service.access.keys import Identity, Scope
from service.errors import ArtifactNotFound, FoldsNotFound, JobNotFound, KeyNotFound, SweepNotFound
from service.runtime.settings import Settings, is_loopback
from service.web.core.core import core
from service.web.http.endpoint import PUBLIC, operation_of
from service.web.http.problems import Problem

COOKIE: Final = "tapeline_session"
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_ID: Final = re.compile(r"[a-z]{1,8}_[0-9A-Za-z]{1,30}")
_HOST: Final = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
_NOT_FOUND: Final[dict[str, type[Exception]]] = {
    "sweep_id": SweepNotFound,
    "group": FoldsNotFound,
    "key_id": KeyNotFound,
    "job_id": JobNotFound,
}
_OWN_SITES: Final = frozenset({"same-origin", "none"})


def register(app: Flask, settings: Settings) -> None:
    """Check every request before its view runs."""
    names = {*settings.allowed_hosts, settings.host}
    allowed_hosts = frozenset(name.lower().rstrip(".") for name in names) - {"", "0.0.0.0", "::"}  # noqa: S104

    @app.context_processor
    def signed_in() -> dict[str, object]:
        caller = identity()
        return {
            "signed_in": caller if caller is not None and caller.session_id is not None else None,
            "signed_out": settings.keys_required and caller is None,
            "is_admin": sees_all(),
            "only_reads": caller is not None and not caller.scope.covers(Scope.SUBMIT),
        }

    @app.before_request
    def check() -> None:
        host = request.environ.get("HTTP_HOST", "")
        if not is_known_host(host, allowed_hosts):
            raise Problem("foreign_host", f"this service does not accept the host name {host[:100]!r}")
        bearer = _bearer()
        if bearer is None and request.method not in SAFE:
            _check_origin(host)
        required_scope = _required_scope()
        if not settings.keys_required or required_scope == PUBLIC:
            return
        cookie = request.cookies.get(COOKIE) if bearer is None else None
        g.identity = _identify(bearer, cookie)
        g.owner = g.identity.owner
        core().quotas.request(g.owner)
        if g.identity.session_id is not None and request.method not in SAFE:
            _require_origin()
        if not g.identity.scope.covers(required_scope):
            detail = f"this needs a key with the scope {required_scope}; this key has the scope {g.identity.scope}"
            raise Problem("scope_missing", detail, needed=required_scope, scope=g.identity.scope)

    app.before_request(_check_ids)


def _check_ids() -> None:
    """Answer malformed ids with 404, without a query: a database may reject such text."""
    view_args = request.view_args or {}
    for name, value in view_args.items():
        if name in _NOT_FOUND and not _ID.fullmatch(value):
            raise _NOT_FOUND[name](value[:60])
        if name == "artifact_id" and not _ID.fullmatch(value):
            raise ArtifactNotFound(view_args["job_id"], f"artifact {value[:60]!r}")


def is_known_host(host: str, allowed: frozenset[str]) -> bool:
    """Whether a ``Host`` header names this machine or one of the allowed names; any port is accepted."""
    if host.lower() in allowed:
        return True
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = match[1].lower().rstrip(".")
    return name in allowed or name.strip("[]") in allowed or name.endswith(".localhost") or is_loopback(name)


def identity() -> Identity | None:
    """The identity behind the current request; ``None`` if no keys are required."""
    value = g.get("identity")
    return value if isinstance(value, Identity) else None


def sees_all() -> bool:
    """Whether the current request may read statistics of all owners: with scope ``admin``, or without API keys."""
    caller = identity()
    return caller is None or caller.scope.covers(Scope.ADMIN)


def actor() -> Actor:
    """The current request's actor; without keys, it has no owner and is not audited."""
    caller = identity()
    return named_actor(caller) if caller is not None else Actor(request_id=g.get("request_id"), is_audited=False)


def named_actor(caller: Identity | None) -> Actor:
    """The actor of a sign-in, successful or not."""
    new_actor = Actor(
        owner=caller.owner if caller is not None else None,
        key_id=caller.key_id if caller is not None else None,
        address=request.remote_addr,
        request_id=g.get("request_id"),
    )
    g.recorded = new_actor.recorded
    return new_actor


def permission_check(scope: Scope = Scope.READ) -> Callable[[], bool]:
    """A check for streams, whether the key or session of the current request is still valid: it may expire or be
    revoked while the stream is open. The check works outside the request context."""
    keyring, requires_key = core().keyring, identity() is not None
    bearer, cookie = _bearer(), request.cookies.get(COOKIE)

    def is_valid() -> bool:
        if not requires_key:
            return True
        caller = keyring.by_key(bearer) if bearer is not None else keyring.by_cookie(cookie or "")
        return caller is not None and caller.scope.covers(scope)

    return is_valid


def key_required_problem(detail: str, *, error: str | None = None) -> Problem:
    """The response to a missing or invalid key."""
    challenge = 'Bearer realm="tapeline"' + (f', error="{error}"' if error else "")
    return Problem("key_required", detail, headers={"WWW-Authenticate": challenge})


def checked_key(text: str) -> Identity:
    """The identity of a key.

    Raises:
        Problem: the key is not valid, or this address has sent too many invalid ones.
    """
    keyring, address = core().keyring, request.remote_addr or ""
    refusal = key_required_problem("the key is not one of this service's, or it has expired", error="invalid_token")
    # Repeating one wrong key must not lock out other clients of this address.
    if keyring.was_refused(text):
        raise refusal
    if not keyring.was_known(text):  # guesses from this address must not lock out valid keys
        core().quotas.check_wrong_keys(address)
    caller = keyring.by_key(text)
    if caller is None:
        core().quotas.count_wrong_key(address)
        raise refusal
    return caller


def _required_scope() -> Scope | str:
    """The scope that this request needs. Unknown URLs need a key, too, so that they reveal nothing."""
    if request.endpoint in ("static", "asset", "favicon"):
        return PUBLIC
    operation = operation_of(current_app.view_functions.get(request.endpoint or ""))
    if operation is not None and operation.scope is not None:
        return operation.scope
    return Scope.READ if request.method in SAFE or request.endpoint is None else Scope.SUBMIT


def _bearer() -> str | None:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" and value.strip() else None


def _identify(bearer: str | None, cookie: str | None) -> Identity:
    if bearer is not None:
        return checked_key(bearer)
    if cookie is None:
        raise key_required_problem("send a key as Authorization: Bearer <key>")
    caller = core().keyring.by_cookie(cookie)
    if caller is None:
        raise key_required_problem("the session has ended: sign in again")
    return caller


def _check_origin(host: str) -> None:
    """Reject cross-site requests: a page of another site cannot set ``Authorization``, but can send forms and simple
    requests."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site not in _OWN_SITES:
        raise Problem("foreign_origin", f"according to Sec-Fetch-Site, the request comes from a {site[:40]} page")
    origin = request.headers.get("Origin")
    if origin is not None and not _is_own_origin(origin, host):
        raise Problem("foreign_origin", f"the origin {origin[:100]!r} is not this service's own")


def _require_origin() -> None:
    """Require a header that names the origin: browsers, which send cookies, always send one."""
    if "Sec-Fetch-Site" not in request.headers and "Origin" not in request.headers:
        raise Problem(
            "foreign_origin",
            "a request with a cookie needs an Origin or Sec-Fetch-Site header; programs send a key instead",
        )


def _is_own_origin(origin: str, host: str) -> bool:
    # The scheme is not compared: behind a proxy that terminates TLS, the service sees http, the browser https.
    try:
        url = urlsplit(origin)
    except ValueError:
        return False
    return url.scheme in ("http", "https") and url.netloc.lower() == host.lower()
