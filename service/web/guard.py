"""Who may ask: the host name, the site a browser speaks for, and the key. Loopback is not authentication."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final
from urllib.parse import urlsplit

from flask import Flask, g, request

from service.contract.settings import Settings, is_loopback
from service.web.problems import Problem

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OPEN: Final = frozenset({"/healthz", "/readyz"})
_OWN_SITES: Final = frozenset({"same-origin", "none"})


def register(app: Flask, settings: Settings) -> None:
    """Check every request before anything looks at it."""
    allowed_hosts = frozenset(name.lower().rstrip(".") for name in settings.allowed_hosts)
    owners = {hashlib.sha256(key.encode()).digest(): owner_of(key) for key in settings.api_keys}

    @app.before_request
    def check() -> None:
        host = request.environ.get("HTTP_HOST", "")
        if not is_known_host(host, allowed_hosts):
            raise Problem("foreign_host", f"this service does not answer to the host name {host[:100]!r}")
        bearer = _bearer()
        if bearer is None and request.method not in _SAFE:
            _check_origin(host)
        if settings.keys_required and request.path not in _OPEN:
            g.owner = _owner(bearer, owners)


def is_known_host(host: str, allowed: frozenset[str]) -> bool:
    """Whether a ``Host`` header names this machine or one of the allowed names; any port will do."""
    name = host.lower()
    if name in allowed:
        return True
    head, colon, port = name.rpartition(":")
    if colon and port.isdigit() and not head.endswith(":"):
        name = head
    name = name.rstrip(".")
    return name in allowed or name.endswith(".localhost") or is_loopback(name)


def owner_of(key: str) -> str:
    """The name under which a key's jobs are stored; the key cannot be had back from it."""
    return "key_" + hashlib.sha256(key.encode()).hexdigest()[:12]


def _bearer() -> str | None:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" and value.strip() else None


def _check_origin(host: str) -> None:
    """A page of another site cannot set ``Authorization``, but it can send forms and simple requests here."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site not in _OWN_SITES:
        raise Problem("foreign_origin", f"the browser says that the request comes from a {site} page")
    origin = request.headers.get("Origin")
    if origin is not None and not _is_own(origin, host):
        raise Problem("foreign_origin", f"the origin {origin[:100]!r} is not this service's own")


def _is_own(origin: str, host: str) -> bool:
    # The scheme is not compared: behind a proxy that ends TLS, this service sees http where the browser says https.
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _owner(bearer: str | None, owners: dict[bytes, str]) -> str:
    challenge = {"WWW-Authenticate": 'Bearer realm="tapeline"'}
    if bearer is None:
        raise Problem("key_required", "send a key as Authorization: Bearer <key>", headers=challenge)
    digest = hashlib.sha256(bearer.encode()).digest()
    found: str | None = None
    for known, owner in owners.items():  # all of them, so that the time tells nothing
        if hmac.compare_digest(digest, known):
            found = owner
    if found is None:
        challenge = {"WWW-Authenticate": 'Bearer realm="tapeline", error="invalid_token"'}
        raise Problem("key_required", "the key is not one of this service's", headers=challenge)
    return found
