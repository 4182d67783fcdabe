"""Limits on requests that are being received: their number, and the time to receive each."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from flask import request

HEAD_S: Final = 10.0
"""From a connection's first byte to the end of the request's header."""
BODY_S: Final = 30.0
"""From the end of the header to the end of the body; uploads extend it."""
MAX_ARRIVALS: Final = 256
"""Per process, not counting requests younger than ``PROMPT_S``; each occupies a thread."""
MAX_ARRIVALS_PER_ADDRESS: Final = 128
"""The same per client address; not applied behind a proxy, where all clients have the proxy's address."""
PROMPT_S: Final = 1.0
"""Younger requests are never aborted for lack of room."""


@dataclass(slots=True)
class _Arrival:
    address: str
    started_at: float
    deadline: float
    admitted: bool = False


class Arrivals:
    """The requests that are being received, by connection, oldest first.

    If there are too many, the oldest are aborted, instead of refusing new ones: a request that is sent at once
    succeeds, however many slow ones there are.
    """

    def __init__(self, *, max_total: int = MAX_ARRIVALS, max_per_address: int = MAX_ARRIVALS_PER_ADDRESS) -> None:
        self._max_total, self._max_per_address = max_total, max_per_address
        self._lock = threading.Lock()
        self._open: dict[socket.socket, _Arrival] = {}

    def disable_address_limit(self) -> None:
        """Disable the limit per address, for a service behind a proxy."""
        self._max_per_address = self._max_total

    def begin(self, connection: socket.socket, address: str) -> None:
        """Add a request; its deadline is ``HEAD_S`` from now."""
        now = time.monotonic()
        with self._lock:
            self._open[connection] = _Arrival(address, now, now + HEAD_S)

    def extend(self, connection: socket.socket, seconds: float, *, admitted: bool = False) -> None:
        """Set the deadline to ``seconds`` from now; an ``admitted`` request is not aborted for lack of room."""
        with self._lock:
            if connection in self._open:
                self._open[connection].deadline = time.monotonic() + seconds
                self._open[connection].admitted = admitted

    def end(self, connection: socket.socket) -> None:
        """Remove a request that was received or failed."""
        with self._lock:
            self._open.pop(connection, None)

    def abort_overdue(self) -> int:
        """Stop reading overdue requests, so that their threads see end of file; returns their number."""
        with self._lock:
            overdue = self._find_overdue(time.monotonic())
            for connection in overdue:
                del self._open[connection]
                with suppress(OSError):  # with the lock held: afterwards, the descriptor may be reused
                    connection.shutdown(socket.SHUT_RD)
        return len(overdue)

    def _find_overdue(self, now: float) -> list[socket.socket]:
        overdue = [connection for connection, arrival in self._open.items() if arrival.deadline < now]
        remaining = len(self._open) - len(overdue)
        per_address = Counter(arrival.address for arrival in self._open.values() if arrival.deadline >= now)
        for connection, arrival in self._open.items():
            if arrival.admitted or now - arrival.started_at < PROMPT_S:
                continue
            is_crowded = remaining > self._max_total or per_address[arrival.address] > self._max_per_address
            if is_crowded and arrival.deadline >= now:
                overdue.append(connection)
                remaining -= 1
                per_address[arrival.address] -= 1
        return overdue


ARRIVALS: Final = Arrivals()
"""The requests of this process."""


def admit(seconds: float) -> None:
    """Set the deadline of the current request's body to ``seconds`` from now, as an admitted upload."""
    connection = _connection()
    if connection is not None:
        ARRIVALS.extend(connection, seconds, admitted=True)


def end() -> None:
    """Record that the body of the current request is complete."""
    connection = _connection()
    if connection is not None:
        ARRIVALS.end(connection)


def _connection() -> socket.socket | None:
    connection = request.environ.get("gunicorn.socket")
    return connection if isinstance(connection, socket.socket) else None
