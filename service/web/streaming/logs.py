"""Streams of append-only logs, whose events are numbered without gaps: a client that was slow or disconnected resumes
after the last number that it has, and misses nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.access.shares import Shared
from service.storage.database import Database
from service.web.streaming.loop import News, stream
from service.web.streaming.messages import RETRY, message
from service.web.streaming.poller import Poller, View
from service.web.streaming.response import StreamClient

_MAX_RECENT: Final = 256
_BATCH_SIZE: Final = 200


@dataclass(frozen=True, slots=True)
class LogEvent:
    """An event, with its encoded text, the same for all clients."""

    document: dict[str, Any]
    text: str

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        """The event of a document with ``seq`` and ``type``."""
        return cls(document, message(document["type"], document, number=document["seq"]))

    @property
    def seq(self) -> int:
        """Its number."""
        return int(self.document["seq"])


class Head(Protocol):
    """The state of an object that has a log."""

    @property
    def last_seq(self) -> int:
        """The number of the last event."""

    @property
    def step(self) -> int:
        """How far it is: when this changes without an event, the stream sends its progress."""

    @property
    def has_ended(self) -> bool:
        """Whether the stream ends after the last event."""


class LogSource(ABC):
    """Reads the logs of one kind of objects, by their ids."""

    is_quick = True

    @abstractmethod
    def heads(self, session: Session, keys: Sequence[str]) -> Mapping[str, Head]:
        """The current states of the objects that exist."""

    @abstractmethod
    def events(self, session: Session, key: str, *, after: int, limit: int) -> list[LogEvent]:
        """The events after a number."""

    def as_of(self, event: LogEvent, head: Head, database: Database) -> LogEvent:
        """The event as it is sent while the object has this state."""
        return event

    def text(self, event: LogEvent, key: str, link: Shared | None) -> str:
        """The encoded event; ``link``: the share link that permits to read it, if one does."""
        return event.text

    def progress(self, key: str, head: Any) -> str:
        """The encoded progress."""
        return ""

    def read(self, session: Session, views: Mapping[str, View]) -> Mapping[str, View]:
        """The new views."""
        heads = self.heads(session, list(views))
        return {key: self._next(session, key, view, heads.get(key)) for key, view in views.items()}

    def _next(self, session: Session, key: str, view: View, head: Head | None) -> View:
        if head is None:
            return view if view.gone else View(gone=True)
        if head == view.state:
            return view
        events: tuple[LogEvent, ...] = ()
        if view.state is not None and 0 <= (count := head.last_seq - view.state.last_seq) <= _MAX_RECENT:
            new = self.events(session, key, after=view.state.last_seq, limit=count) if count else ()
            events = (*view.events, *new)[-_MAX_RECENT:]
        return View(head, events, head.last_seq, self.progress(key, head))


def follow(
    poller: Poller, source: LogSource, key: str, snapshot: str, head: Head, client: StreamClient, *, after: int
) -> Iterator[str]:
    """The text of one client's stream: a snapshot, the events after number ``after``, then new events until the end.

    Args:
        head: the state that the snapshot shows.
    """
    reader = _Reader(source, key, poller.database, client.link, head, min(after, head.last_seq), head.step)
    with poller.listen(source, key) as listener:
        yield RETRY + snapshot
        yield from stream(poller, listener, client, reader.read)


@dataclass(slots=True)
class _Reader:
    """Reads the log of one object for one client."""

    source: LogSource
    key: str
    database: Database
    link: Shared | None
    head: Head
    sent_seq: int
    step: int
    """The progress that was sent."""

    def read(self, view: View) -> News:
        """The events that were not sent, and the progress."""
        head = self.head
        if view.state is not None and (view.state.last_seq, view.state.step) >= (head.last_seq, head.step):
            self.head = head = view.state
        try:
            batch = self._unsent(view)
        except SQLAlchemyError:  # logged by the polling thread
            batch = []
        texts = [self.source.text(event, self.key, self.link) for event in batch]
        self.sent_seq = batch[-1].seq if batch else self.sent_seq
        has_ended = head.has_ended and self.sent_seq >= head.last_seq
        if head.step != self.step and not has_ended:
            self.step = head.step
            texts.append(view.progress if head is view.state else self.source.progress(self.key, head))
        return News(texts, has_more=bool(batch), is_last=has_ended)

    def _unsent(self, view: View) -> Sequence[LogEvent]:
        if self.sent_seq >= self.head.last_seq:
            return []
        unsent: Sequence[LogEvent] | None = view.since(self.sent_seq)
        if unsent is None:
            with self.database.read() as session:
                unsent = self.source.events(session, self.key, after=self.sent_seq, limit=_BATCH_SIZE)
        # Only up to the current state, which says whether an end event is final.
        return [
            self.source.as_of(event, self.head, self.database) for event in unsent if event.seq <= self.head.last_seq
        ]
