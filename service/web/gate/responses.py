"""What every response gets: a request id, a line of JSON in the log, and security headers."""

from __future__ import annotations

import re
import time
from typing import Final

import structlog
from flask import Flask, Response, g, request
from ulid import ULID

from service.runtime import tracing
from service.web.gate import server_spans
from service.web.gate.access_checks import identity, is_shared
from tapeline.version import VERSION

_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CREATED_JOB: Final = re.compile(r"/jobs/(job_[0-9A-Za-z]+)$")
_SECRET: Final = re.compile(r"\b(t[a-z]{2}_[0-9a-f]{12}_)[0-9a-f]+")
"""In the addresses of links, which must not reach the log."""
_QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_SVG_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"
"""matplotlib's SVG files contain styles; opened as documents, they may run no script."""

_PICTURE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; frame-ancestors 'none'"
"""A browser that opens an image directly wraps it in a page with styles."""

_DATA_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
"""For all other data: if a browser renders it as a page, it can load and run nothing."""

_ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}

_log = structlog.get_logger("tapeline.web")


def log_requests(app: Flask) -> None:
    """Assign an id to each request, and log it."""

    @app.before_request
    def begin() -> None:
        client_id = request.headers.get("X-Request-Id", "")
        g.request_id = client_id if _ID.fullmatch(client_id) else f"req_{ULID()}"
        g.began = time.perf_counter()
        server_spans.begin()
        structlog.contextvars.bind_contextvars(request_id=g.request_id, **tracing.named(g.traceparent))

    @app.after_request
    def end(response: Response) -> Response:
        if "request_id" in g:
            response.headers["X-Request-Id"] = g.request_id
            if request.path not in _QUIET or response.status_code >= 400:
                _log.info(
                    "request",
                    method=request.method,
                    path=_SECRET.sub(r"\1...", request.path),
                    status=response.status_code,
                    ms=round(1000 * (time.perf_counter() - g.began), 1),
                    owner=caller.owner if (caller := identity()) is not None and not is_shared() else None,
                    job=_job(response),
                )
            for action in g.actor.recorded if "actor" in g else ():  # committed by now, unless there is an error
                if response.status_code < 400 or action["subject"] is None:
                    _log.info("audit", owner=g.actor.owner, address=request.remote_addr, **action)
            server_spans.describe(response.status_code, job=_job(response))
        return response

    @app.teardown_request
    def forget(error: BaseException | None) -> None:
        server_spans.end()
        structlog.contextvars.unbind_contextvars("request_id", "trace_id")


def add_headers(app: Flask) -> None:
    """Add the security headers to every response, problems included, and the version to those of known callers."""

    @app.after_request
    def add(response: Response) -> Response:
        response.headers.update(_ALWAYS)
        if identity() is not None:
            response.headers["Tapeline-Version"] = VERSION
        media_type = response.mimetype or ""
        policies = {"text/html": _POLICY, "image/svg+xml": _SVG_POLICY}
        policy = policies.get(media_type, _PICTURE_POLICY if media_type.startswith("image/") else _DATA_POLICY)
        response.headers["Content-Security-Policy"] = policy
        response.headers.setdefault("Cache-Control", "no-store")
        return response


def _job(response: Response) -> str | None:
    """The job that the request addressed or created."""
    if request.method == "POST" and response.status_code == 201 and response.location:
        match = _CREATED_JOB.search(response.location)
        if match is not None:
            return match[1]
    job_id = (request.view_args or {}).get("job_id")
    return str(job_id) if job_id is not None else None
