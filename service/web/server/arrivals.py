"""Requests that are still on their way in: how many there may be, and how long each may take."""

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
"""From there to the end of the body; uploads ask for more."""
MAX_ARRIVALS: Final = 256
"""In one process, of those that take longer than ``PROMPT_S``: each holds a thread."""
MAX_ARRIVALS_OF_ADDRESS: Final = 128
"""Where each client has an address of its own: behind a proxy all have the proxy's."""
PROMPT_S: Final = 1.0
"""A request that has been on its way for less is not late, however many there are."""


@dataclass(slots=True)
class _Arrival:
    address: str
    began: float
    deadline: float
    admitted: bool = False


class Arrivals:
    """Keeps the requests that are being received, by connection, the oldest first.

    Where there are too many, the oldest are cut off and not the newest refused: whoever sends a request in one piece
    gets through, however many others trickle.
    """

    def __init__(self, *, most: int = MAX_ARRIVALS, most_of_address: int = MAX_ARRIVALS_OF_ADDRESS) -> None:
        self._most, self._most_of_address = most, most_of_address
        self._lock = threading.Lock()
        self._open: dict[socket.socket, _Arrival] = {}

    def trust_no_address(self) -> None:
        """Behind a proxy all clients have one address: only the limit for all of them holds."""
        self._most_of_address = self._most

    def begin(self, connection: socket.socket, address: str) -> None:
        """Take note of a request."""
        now = time.monotonic()
        with self._lock:
            self._open[connection] = _Arrival(address, now, now + HEAD_S)

    def extend(self, connection: socket.socket, seconds: float, *, admitted: bool = False) -> None:
        """Give a request so much time from now on; one that is ``admitted`` makes room for no other."""
        with self._lock:
            if connection in self._open:
                self._open[connection].deadline = time.monotonic() + seconds
                self._open[connection].admitted = admitted

    def end(self, connection: socket.socket) -> None:
        """The request is here, or will never be."""
        with self._lock:
            self._open.pop(connection, None)

    def cut_off_late(self) -> int:
        """Stop reading from those whose time is over, and tell how many: their threads see the end of the request."""
        with self._lock:
            late = self._late(time.monotonic())
            for connection in late:
                del self._open[connection]
                with suppress(OSError):  # with the lock held: once it is released, the descriptor may be another's
                    connection.shutdown(socket.SHUT_RD)
        return len(late)

    def _late(self, now: float) -> list[socket.socket]:
        late = [connection for connection, arrival in self._open.items() if arrival.deadline < now]
        left = len(self._open) - len(late)
        of_address = Counter(arrival.address for arrival in self._open.values() if arrival.deadline >= now)
        for connection, arrival in self._open.items():
            if arrival.admitted or now - arrival.began < PROMPT_S:
                continue
            crowded = left > self._most or of_address[arrival.address] > self._most_of_address
            if crowded and arrival.deadline >= now:
                late.append(connection)
                left -= 1
                of_address[arrival.address] -= 1
        return late


ARRIVALS: Final = Arrivals()
"""Of this process."""


def admit(seconds: float) -> None:
    """Let the current request's body, an upload that was let in, take so much time, however many others there are."""
    connection = _connection()
    if connection is not None:
        ARRIVALS.extend(connection, seconds, admitted=True)


def end() -> None:
    """The current request's body is here."""
    connection = _connection()
    if connection is not None:
        ARRIVALS.end(connection)


def _connection() -> socket.socket | None:
    found = request.environ.get("gunicorn.socket")
    return found if isinstance(found, socket.socket) else None
