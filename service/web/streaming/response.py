"""A stream as the response to a request: its admission, its headers, and its client, who must stay connected and
authorized."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from flask import Response, request
from sqlalchemy.exc import SQLAlchemyError

from service.access.shares import Shared
from service.web.core.core import provided
from service.web.core.metrics import STREAMS
from service.web.gate.access_checks import count_stream, permission_check, share_link
from service.web.http.problems import Problem
from service.web.streaming.poller import Poller

RECHECK_S: Final = 3.0
"""How often an open stream checks whether its key is still valid."""


class Permission:
    """Whether a stream may continue, rechecked every ``RECHECK_S``."""

    def __init__(self, check: Callable[[], bool]) -> None:
        self._check, self._checked_at, self._is_granted = check, time.monotonic(), True

    def __bool__(self) -> bool:
        now = time.monotonic()
        if self._is_granted and now - self._checked_at >= RECHECK_S:
            self._checked_at = now
            # While the database does not respond, the stream has nothing to send either.
            with suppress(SQLAlchemyError):
                self._is_granted = self._check()
        return self._is_granted


@dataclass(frozen=True, slots=True)
class StreamClient:
    """One client of a stream.

    Attributes:
        connection: ``None`` if the server does not expose it; a failing write ends the stream then.
        permission: a stream ends some seconds after it turns false.
        link: the share link that permits the request, if one does.
    """

    connection: socket.socket | None
    permission: Permission
    link: Shared | None = None

    @property
    def has_left(self) -> bool:
        """Whether the client has closed the connection."""
        if self.connection is None:
            return False
        try:
            return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


def refuse_if_full() -> None:
    """Refuse a stream that would occupy a thread reserved for quick requests.

    Raises:
        Problem: too many streams are open in this process.
    """
    if provided(Poller).is_full:
        raise Problem(
            "too_many_streams", "too many streams are open in this web process", headers={"Retry-After": "10"}
        )


def stream_response(open_stream: Callable[[StreamClient], Iterator[str]]) -> Response:
    """The response to a request for a stream.

    Args:
        open_stream: called with the client; yields the text of the stream.

    Raises:
        QuotaExceeded: the caller has too many open streams.
    """
    connection = request.environ.get("gunicorn.socket") or request.environ.get("werkzeug.socket")
    is_exposed = isinstance(connection, socket.socket)
    client = StreamClient(connection if is_exposed else None, Permission(permission_check()), share_link())
    close = count_stream()
    response = Response(_track_stream(open_stream(client)), content_type="text/event-stream; charset=utf-8")
    response.call_on_close(close)
    response.headers["Cache-Control"] = "no-cache, no-transform"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _track_stream(text: Iterator[str]) -> Iterator[str]:
    with STREAMS.track_inprogress():
        yield from text
