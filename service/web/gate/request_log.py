"""The request log: one JSON line per request, with a request id that the response contains, too."""

from __future__ import annotations

import re
import time
from typing import Final

import structlog
from flask import Flask, Response, g, request
from ulid import ULID

_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CREATED_JOB: Final = re.compile(r"/jobs/(job_[0-9A-Za-z]+)$")
_QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})

_log = structlog.get_logger("tapeline.web")


def register(app: Flask) -> None:
    """Assign an id to each request, and log it."""

    @app.before_request
    def begin() -> None:
        client_id = request.headers.get("X-Request-Id", "")
        g.request_id = client_id if _ID.fullmatch(client_id) else f"req_{ULID()}"
        g.began = time.perf_counter()
        structlog.contextvars.bind_contextvars(request_id=g.request_id)

    @app.after_request
    def end(response: Response) -> Response:
        if "request_id" in g:
            response.headers["X-Request-Id"] = g.request_id
            if request.path not in _QUIET or response.status_code >= 400:
                _log.info(
                    "request",
                    method=request.method,
                    path=request.path,
                    status=response.status_code,
                    ms=round(1000 * (time.perf_counter() - g.began), 1),
                    owner=g.get("owner"),
                    job=_job(response),
                )
            for action in g.get("recorded", ()):  # committed by now, unless the response is an error
                if response.status_code < 400 or action["subject"] is None:
                    _log.info("audit", owner=g.get("owner"), address=request.remote_addr, **action)
        return response

    @app.teardown_request
    def forget(error: BaseException | None) -> None:
        structlog.contextvars.unbind_contextvars("request_id")


def _job(response: Response) -> str | None:
    """The job that the request addressed or created."""
    if request.method == "POST" and response.status_code == 201 and response.location:
        match = _CREATED_JOB.search(response.location)
        if match is not None:
            return match[1]
    job_id = (request.view_args or {}).get("job_id")
    return str(job_id) if job_id is not None else None
