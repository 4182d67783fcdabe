"""Access checks: host name, origin, API key and form of ids. Loopback is not authentication."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar, cast
from urllib.parse import urlsplit

from cachetools import TTLCache
from flask import Flask, g, request
from sqlalchemy.orm import Session

from service import declarations, kinds
from service.access import audit, shares
from service.access.audit import Actor, AuditAction
from service.access.keys import Identity, Scope
from service.access.owners import EVERYBODY, display_name, find
from service.access.shares import Shared
from service.declarations import Room
from service.errors import TokenRefused
from service.web.core.core import core, provided
from service.web.core.rooms import Links
from service.web.gate.host_names import HostNames
from service.web.http import path_parameters
from service.web.http.endpoint import PUBLIC, PathRule, current_operation
from service.web.http.path_parameters import ID, Values
from service.web.http.problems import Problem
from service.web.http.requests import read_query
from service.web.http.templates import FILES

T = TypeVar("T")

COOKIE: Final = "tapeline_session"
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})

SHARED_STREAMS: Final = 20
"""Simultaneously open streams of a share link, in each web process."""
_READS: Final[TTLCache[tuple[str, str | None], None]] = TTLCache(10_000, ttl=3600)
"""Reads of what belongs to others that have been recorded."""
_READS_LOCK: Final = threading.Lock()
_OWN_SITES: Final = frozenset({"same-origin", "none"})


def register(app: Flask) -> None:
    """Check every request before its view runs."""
    _links()  # loaded before the first request

    @app.context_processor
    def signed_in() -> dict[str, object]:
        caller, sharing = identity(), is_shared()
        viewer = g.get("browser", None if sharing else caller)
        is_of_others = caller is not None and g.get("owner") != caller.owner
        return {
            "signed_in": viewer if viewer is not None and viewer.session_id is not None else None,
            "signed_out": core().settings.keys_required and viewer is None,
            "is_admin": sees_all() if viewer is None else viewer.scope.covers(Scope.ADMIN),
            "only_reads": caller is not None and (is_of_others or not caller.scope.covers(Scope.SUBMIT)),
            "shared_by": _display_name() if sharing else None,
            "belongs_to": _display_name() if is_of_others and not _lists_for_others() else None,
            "can_share": caller is not None,
        }

    @app.before_request
    def check() -> None:
        host = request.environ.get("HTTP_HOST", "")
        if not provided(HostNames).include(host):
            raise Problem("foreign_host", f"this service does not accept the host name {host[:100]!r}")
        bearer = _bearer()
        if bearer is None and request.method not in SAFE:
            _check_origin(host)
        required_scope = _required_scope()
        if not core().settings.keys_required or required_scope == PUBLIC:
            asked = _asked_owner()
            g.owner = named_owner(asked) if asked not in (None, "*") else None
            return
        cookie = request.cookies.get(COOKIE) if bearer is None else None
        if (caller := _shared_identity(bearer)) is not None:
            g.identity, g.owner, g.counted_for = caller, caller.owner, caller.key_id
            core().quotas.request(caller.key_id)
            return
        g.identity = _identify(bearer, cookie)
        g.owner = g.counted_for = g.identity.owner
        core().quotas.request(g.owner)
        if g.identity.session_id is not None and request.method not in SAFE:
            _require_origin()
        if request.method in SAFE:
            g.owner = _owner_to_read(g.identity)
        if not g.identity.scope.covers(required_scope):
            detail = f"this needs a key with the scope {required_scope}; this key has the scope {g.identity.scope}"
            raise Problem("scope_missing", detail, needed=required_scope, scope=g.identity.scope)

    app.before_request(_check_ids)


def _display_name() -> str:
    """The name of the owner of what the request reads."""
    with core().database.read() as session:
        return display_name(session, g.owner or EVERYBODY) or "everybody without a key"


def _check_ids() -> None:
    """Answer malformed ids with 404."""
    path_parameters.check(request.view_args or {})


def identity() -> Identity | None:
    """The identity behind the current request; ``None`` if no keys are required."""
    value = g.get("identity")
    return value if isinstance(value, Identity) else None


def browser() -> Identity | None:
    """Who is signed in to the browser, also where a link permits the request, or nothing has to."""
    cookie = request.cookies.get(COOKIE) if core().settings.keys_required else None
    return core().keyring.by_cookie(cookie) if cookie is not None else None


def share_link() -> Shared | None:
    """The share link that permits the current request, if one does."""
    return cast("Shared | None", g.get("share"))


@functools.cache
def _links() -> tuple[Links, ...]:
    return declarations.load(Room.GATE, Links)


def find_link(session: Session, links: Links, token: str) -> Shared:
    """The link of a token.

    Raises:
        TokenRefused: it is not valid.
    """
    return links.find(session, token, core().keyring.configured_owners)


def named_link(token: str, find: Callable[[Session, str], T]) -> T:
    """The link that a request names by its token. Tokens that are not valid count as wrong keys.

    Raises:
        TokenRefused: see ``find``.
        QuotaExceeded: this address has sent too many wrong keys.
    """
    keyring, address = core().keyring, request.remote_addr or ""
    core().quotas.check_wrong_keys(address)
    try:
        with core().database.read() as session:
            return find(session, token)
    except TokenRefused:
        if not keyring.was_refused(token):  # repeating one must not lock out other clients of this address
            keyring.refuse(token)
            core().quotas.count_wrong_key(address)
        raise


def is_shared() -> bool:
    """Whether a share link permits the current request."""
    return share_link() is not None


def sees_all() -> bool:
    """Whether the current request may read statistics of all owners: with scope ``admin``, or without API keys."""
    caller = identity()
    return caller is None or caller.scope.covers(Scope.ADMIN)


def actor() -> Actor:
    """The current request's actor; without keys, it has no owner and is not audited."""
    caller = identity()
    if caller is not None:
        return named_actor(caller)
    return Actor(request_id=g.get("request_id"), traceparent=g.get("traceparent"), is_audited=False)


def named_actor(caller: Identity | None) -> Actor:
    """The actor of a sign-in, successful or not."""
    new_actor = Actor(
        owner=caller.owner if caller is not None else None,
        key_id=caller.key_id if caller is not None else None,
        address=request.remote_addr,
        request_id=g.get("request_id"),
        traceparent=g.get("traceparent"),
        recorded=g.actor.recorded if "actor" in g else [],
    )
    g.actor = new_actor
    return new_actor


def count_stream() -> Callable[[], None]:
    """Count a stream of the current request; call the returned function when it is closed. Those of a share link count
    for the link: strangers must not use up the streams of its owner.

    Raises:
        QuotaExceeded: too many are open.
    """
    return core().quotas.stream(g.get("counted_for"), at_most=SHARED_STREAMS if is_shared() else None)


def permission_check(scope: Scope = Scope.READ) -> Callable[[], bool]:
    """A check for streams, whether the key or session of the current request is still valid: it may expire or be
    revoked while the stream is open. The check works outside the request context."""
    keyring, requires_key = core().keyring, identity() is not None
    bearer, cookie = _bearer(), request.cookies.get(COOKIE)
    link, database = share_link(), core().database
    links = _links()

    def is_valid() -> bool:
        if not requires_key:
            return True
        if link is not None:
            of_token = (item for item in links if item.pattern.fullmatch(link.token))
            with database.read() as session, suppress(TokenRefused):
                return any(item.find(session, link.token, keyring.configured_owners) for item in of_token)
            return False
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
    if request.endpoint in FILES:
        return PUBLIC
    operation = current_operation()
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


def _shared_identity(bearer: str | None) -> Identity | None:
    """The identity of a share link that covers this request; ``None``: there is none, or the caller has a key of the
    same owner, which permits more.

    Raises:
        TokenRefused: the request has no key, but a link that does not cover it.
    """
    if bearer is not None:
        of_bearer = next((item for item in _links() if item.pattern.fullmatch(bearer)), None)
        if of_bearer is None:
            return None
        g.share = named_link(bearer, lambda session, token: find_link(session, of_bearer, token))
        with core().database.read() as session:
            if not _is_shown(session, g.share):
                raise of_bearer.refused
        return cast(Shared, g.share).identity
    opened = [(item, token) for item in _links() for token in item.opened(request.cookies.get(item.cookie))]
    if not opened:
        return None
    with core().database.read() as session:
        for links, token in opened:
            with suppress(TokenRefused):
                shared = find_link(session, links, token)
                if not _is_shown(session, shared):
                    continue
                signed_in = browser()
                if signed_in is not None and signed_in.owner == shared.identity.owner:
                    return None
                g.share, g.browser = shared, signed_in
                return shared.identity
    return None


def _owner_to_read(caller: Identity) -> str | None:
    """The owner as whom an admin reads: that of the job or sweep, or the one of the parameter ``owner``; ``None``: all.

    Reading what belongs to others is recorded in the audit log, the same by the same key once an hour.
    """
    asked = _asked_owner()
    if not caller.scope.covers(Scope.ADMIN):
        if asked and asked != caller.owner:
            raise Problem("scope_missing", "this needs a key with the scope admin", needed=Scope.ADMIN)
        return caller.owner
    _check_ids()
    subject: str | None = None
    if (named := path_parameters.named_object(request.view_args or {})) is not None:
        with core().database.read() as session:
            found = session.execute(named.query).first()
        owner, subject = (found.owner or EVERYBODY, named.id) if found is not None else (caller.owner, None)
    elif asked:
        owner = None if asked == "*" else named_owner(asked)
        subject = owner or asked
    else:
        return caller.owner
    if owner != caller.owner and not _was_recorded(caller.key_id, subject):
        operation = current_operation()
        if operation is not None and operation.query is not None:
            read_query(operation.query)  # what is not valid reads nothing
        with core().database.write() as session:
            audit.record(session, named_actor(caller), AuditAction.READ_OTHERS, subject)
        with _READS_LOCK:
            _READS[caller.key_id, subject] = None
    return owner


def _was_recorded(key_id: str, subject: str | None) -> bool:
    with _READS_LOCK:
        return (key_id, subject) in _READS


def _asked_owner() -> str | None:
    """The parameter ``owner``, where one is asked for."""
    return (request.args.get("owner") if _lists_for_others() else None) or None


def _lists_for_others() -> bool:
    operation = current_operation()
    return operation is not None and operation.lists_for_others and request.method in SAFE


def named_owner(text: str) -> str:
    """The owner whom a request names by id or display name.

    Raises:
        OwnerNotFound: there is none, or several have the name.
    """
    with core().database.read() as session:
        return find(session, text)


def _is_shown(session: Session, shared: Shared) -> bool:
    """Whether a share link shows what this request reads."""
    operation, path = current_operation(), request.view_args or {}
    if request.method not in SAFE or operation is None:
        return False
    if not operation.compares and not _applies(operation.is_shown_by_links, path):
        return False
    if not all(ID.fullmatch(path[name]) for name in ("job_id", "sweep_id") if name in path):
        return False
    if (job_id := path.get("job_id")) is not None:
        kind = shares.kind_of(session, shared, job_id)
        # The sample grids of a classifier and the residuals of a regressor show examples of its dataset.
        return kind is not None and (kinds.of(kind).shares_samples or not _applies(operation.shows_examples, path))
    if (sweep_id := path.get("sweep_id")) is not None:
        return sweep_id in shared.ids
    named = (value for name in operation.compares for value in request.args.getlist(name))
    asked = {part.partition(":")[0] for value in named for part in value.split(",")} - {""}
    is_comparison = bool(asked) and all(map(ID.fullmatch, asked))
    return is_comparison and all(name in shared.ids or shares.kind_of(session, shared, name) for name in asked)


def _applies(rule: bool | PathRule, path: Values) -> bool:
    return rule if isinstance(rule, bool) else rule(path)


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
