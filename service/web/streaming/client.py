"""The client of a stream: whether it is still connected and authorized after its request was accepted."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

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
    """

    connection: socket.socket | None
    permission: Permission

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
