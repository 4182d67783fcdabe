"""The background thread that polls the database for all streams of a web process, while there are any."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.storage.database import Database
from service.web.streaming.messages import PING_S

DATABASE_POLL_INTERVAL_S: Final = 0.2
MAX_CLIENTS: Final = 600
"""Maximum number of streams and delayed responses per web process; each occupies a thread."""
_ACTIVE_S: Final = 1.0
"""How long after an event, or the start of a stream, logs are polled at the shorter interval."""
_ACTIVE_INTERVAL_S: Final = 0.025
_FEW_CLIENTS: Final = 10
"""With more clients, the shorter interval grows in proportion: each poll that finds an event wakes all of them."""

_log = structlog.get_logger("tapeline.web.stream")


@dataclass(frozen=True, slots=True)
class View:
    """What the last poll found under one key. It is replaced as a whole, so that its parts always match."""

    state: Any = None
    """The source's; ``None`` before the first poll."""
    events: tuple[Any, ...] = ()
    """The latest events without gaps, so that all clients share one query."""
    end: int = 0
    """The position after the last of them."""
    progress: str = ""
    """The encoded progress, which all clients share."""
    gone: bool = False
    """Whether there is nothing under this key any more."""

    def since(self, position: int) -> tuple[Any, ...] | None:
        """The events from a position on; ``None`` if some are not buffered."""
        start = self.end - len(self.events)
        return self.events[position - start :] if self.state is not None and position >= start else None


class Source(Protocol):
    """Reads the rows of one subject."""

    is_quick: bool
    """Whether it is polled at the shorter interval while events follow each other, and after the start of a stream."""

    def read(self, session: Session, views: Mapping[str, View]) -> Mapping[str, View]:
        """The new view of each key that has clients, or the same object if nothing has changed."""


@dataclass(slots=True, eq=False)
class _Topic:
    view: View = field(default_factory=View)
    listeners: set[threading.Event] = field(default_factory=set)


class Listener:
    """One client of a key."""

    def __init__(self, topic: _Topic, wake_up: threading.Event) -> None:
        self._topic, self._wake_up = topic, wake_up

    @property
    def view(self) -> View:
        """What the last poll found."""
        return self._topic.view

    def wait(self, timeout_s: float) -> None:
        """Wait for a change, up to ``timeout_s`` seconds."""
        self._wake_up.wait(timeout_s)
        self._wake_up.clear()


class Poller:
    """Polls the database for all streams of this process. Its thread runs only while there are clients."""

    def __init__(self, database: Database, *, interval_s: float = DATABASE_POLL_INTERVAL_S) -> None:
        self.database = database
        self.ping_s, self.max_clients = PING_S, MAX_CLIENTS
        self.clients = 0
        self.closing = False
        """Set when the process stops: every stream ends, and its client reconnects to another process."""
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._wake_up = threading.Event()
        self._thread: threading.Thread | None = None
        self._topics: dict[tuple[Source, str], _Topic] = {}
        self._next_poll: dict[Source, float] = {}
        self._active_at = self._last_poll_s = 0.0

    @property
    def is_full(self) -> bool:
        """Whether another stream or delayed response would occupy a thread that is reserved for quick requests."""
        return self.clients >= self.max_clients

    @property
    def is_reading(self) -> bool:
        """Whether the thread runs; it ends after the last client has left."""
        return self._thread is not None

    @contextmanager
    def listen(self, source: Source, key: str = "", *, is_stream: bool = True) -> Iterator[Listener]:
        """Follow what a source reads for a key.

        Args:
            is_stream: whether it starts the shorter interval. Long polling does not: its clients listen again after
                each response, and would keep the interval short although nothing happens.
        """
        wake_up = threading.Event()
        with self._lock:
            topic = self._topics.setdefault((source, key), _Topic())
            topic.listeners.add(wake_up)
            self.clients += 1
            if is_stream and source.is_quick:
                self._active_at = time.monotonic()
            self._next_poll[source] = 0.0
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="streams", daemon=True)
                self._thread.start()
        self._wake_up.set()
        try:
            yield Listener(topic, wake_up)
        finally:
            with self._lock:
                self.clients -= 1
                topic.listeners.discard(wake_up)
                if not topic.listeners:
                    self._topics.pop((source, key), None)
            self._wake_up.set()

    def _run(self) -> None:
        is_failing = False
        while True:
            with self._lock:
                topics: dict[Source, dict[str, _Topic]] = {}
                for (source, key), topic in self._topics.items():
                    topics.setdefault(source, {})[key] = topic
                if not topics:
                    self._thread = None
                    return
                now = time.monotonic()
                due = [source for source in topics if now >= self._next_poll[source]]
                for source in due:
                    self._next_poll[source] = now  # a client that comes from now on sets it to 0: it was not polled
            for source in due:
                try:
                    self._poll(source, topics[source])
                    is_failing = False
                except SQLAlchemyError as error:
                    if not is_failing:
                        _log.warning("streams are stalled: the database does not respond", error=str(error))
                    is_failing = True
                with self._lock:
                    if self._next_poll[source]:
                        self._next_poll[source] = time.monotonic() + self._interval_until_next(source)
            self._wake_up.wait(max(0.0, min(self._next_poll[source] for source in topics) - time.monotonic()))
            self._wake_up.clear()

    def _interval_until_next(self, source: Source) -> float:
        if not source.is_quick or time.monotonic() - self._active_at > _ACTIVE_S:
            return self._interval_s
        active_s = max(_ACTIVE_INTERVAL_S * max(1.0, self.clients / _FEW_CLIENTS), 2 * self._last_poll_s)
        return min(self._interval_s, active_s)

    def _poll(self, source: Source, topics: Mapping[str, _Topic]) -> None:
        started = time.monotonic()
        with self.database.read() as session:
            views = source.read(session, {key: topic.view for key, topic in topics.items()})
            self._last_poll_s = time.monotonic() - started
            # Only after all reads, since a poll that fails halfway must change nothing, and before the session is
            # closed, which may fail: a source may not return the same events again.
            self._publish(source, topics, views)

    def _publish(self, source: Source, topics: Mapping[str, _Topic], views: Mapping[str, View]) -> None:
        for key, topic in topics.items():
            previous, topic.view = topic.view, views[key]
            if topic.view is previous:
                continue
            if source.is_quick and previous.state is not None and topic.view.end != previous.end:
                self._active_at = time.monotonic()
            with self._lock:
                listeners = list(topic.listeners)
            for wake_up in listeners:
                wake_up.set()
