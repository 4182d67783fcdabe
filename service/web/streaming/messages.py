"""The wire format of server-sent events, which all streams share."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

CHUNK_SIZE: Final = 16 * 1024
"""In characters. It bounds the memory that a client that does not read occupies."""
PING_S: Final = 15.0
PING: Final = ": ping\n\n"
RETRY: Final = "retry: 2000\n"
"""Tells clients to wait 2 s before they reconnect; sent as a message of its own, or as the first line of an event."""


def message(event: str, document: Any, *, number: int | None = None) -> str:
    """One event.

    Args:
        number: its ``id``, which a client sends back as ``Last-Event-ID``; ``None``: it is not replayed.
    """
    data = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))  # one line
    id_line = "" if number is None else f"id: {number}\n"
    return f"{id_line}event: {event}\ndata: {data}\n\n"


def chunks(messages: Iterable[str]) -> Iterator[str]:
    """Join messages to chunks of about ``CHUNK_SIZE``; each chunk is one write, which costs more than its text."""
    chunk: list[str] = []
    size = 0
    for text in messages:
        chunk.append(text)
        size += len(text)
        if size >= CHUNK_SIZE:
            yield "".join(chunk)
            chunk, size = [], 0
    if chunk:
        yield "".join(chunk)


class PingTimer:
    """Determines when a quiet stream needs a ping, which keeps proxies from closing it."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._written_at = time.monotonic()

    def restart(self) -> None:
        """Record that something was sent."""
        self._written_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether nothing was sent for an interval; restarts the timer then."""
        if time.monotonic() - self._written_at < self._interval_s:
            return False
        self.restart()
        return True
