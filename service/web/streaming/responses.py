"""A stream as the response to a request: admission, quota and headers."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

from flask import Response, request

from service.web.metrics import STREAMS
from service.web.middleware.access_checks import permission_check
from service.web.middleware.problems import Problem
from service.web.services import owner, services
from service.web.streaming.client import Permission, StreamClient


def refuse_if_full() -> None:
    """Refuse a stream that would occupy a thread reserved for quick requests.

    Raises:
        Problem: too many streams are open in this process.
    """
    if services().is_full:
        raise Problem(
            "too_many_streams", "too many streams are open in this web process", headers={"Retry-After": "10"}
        )


def stream_response(open_stream: Callable[[StreamClient], Iterator[str]]) -> Response:
    """The response to a request for a stream.

    Args:
        open_stream: called with the client; yields the text of the stream.

    Raises:
        QuotaExceeded: the owner has too many open streams.
    """
    client = StreamClient(_connection(), Permission(permission_check()))
    close = services().quotas.stream(owner())
    response = Response(_track_stream(open_stream(client)), content_type="text/event-stream; charset=utf-8")
    response.call_on_close(close)
    response.headers["Cache-Control"] = "no-cache, no-transform"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _track_stream(text: Iterator[str]) -> Iterator[str]:
    with STREAMS.track_inprogress():
        yield from text


def _connection() -> socket.socket | None:
    """The connection of the current request, if the server exposes it."""
    connection = request.environ.get("gunicorn.socket") or request.environ.get("werkzeug.socket")
    return connection if isinstance(connection, socket.socket) else None
