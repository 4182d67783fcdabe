"""Documents of the API, and what jobs and sweeps have in common: actions, and an event stream."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from html import escape
from typing import Any, ClassVar, Final, Self
from uuid import uuid4

from tapeline import streams
from tapeline.connection import Connection, json_body, segment
from tapeline.errors import ClientError, ServerUnreachable, ServerUntrusted
from tapeline.method_types import Event
from tapeline.notebook.live import live
from tapeline.streams import OnOutage

_ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})
_POLL_INTERVAL_S: Final = 0.5


class Document(Mapping[str, Any]):
    """A resource of the service as of the last request: a mapping over the document of the API."""

    def __init__(self, connection: Connection, document: Mapping[str, Any]) -> None:
        self._connection = connection
        self._document = dict(document)

    def __getitem__(self, field: str) -> Any:
        return self._document[field]

    def __iter__(self) -> Iterator[str]:
        return iter(self._document)

    def __len__(self) -> int:
        return len(self._document)

    def __eq__(self, other: object) -> bool:
        return dict(self) == dict(other) if isinstance(other, Mapping) else NotImplemented

    @property
    def document(self) -> dict[str, Any]:
        """The document of the API, for example to print it as JSON."""
        return dict(self._document)

    @property
    def page(self) -> str:
        """The URL of its page."""
        return f"{self._connection.server}{self._read('urls')['page']}"

    def refresh(self) -> Self:
        """Fetch the document again."""
        return self._set_document(self._connection.json("GET", self._path))

    @abstractmethod
    def _html(self) -> str:
        """It as a notebook shows it, read from the service."""

    def _repr_html_(self) -> str:
        try:
            return self._html()
        except ClientError as error:
            return escape(f"{self!r}: {error}")

    @property
    @abstractmethod
    def _path(self) -> str:
        """Its address."""

    def _read(self, field: str) -> Any:
        """A field of the document, which is fetched if the list item or handle lacks it."""
        if field not in self._document:
            self.refresh()
        return self._document[field]

    def _set_document(self, document: Mapping[str, Any]) -> Self:
        self._document = dict(document)
        return self


class Resource(Document):
    """A job or a sweep."""

    _noun: ClassVar[str]

    def __repr__(self) -> str:
        name = f" {self._document['name']!r}" if self._document.get("name") else ""
        return f"<{self._noun.capitalize()} {self.id}{name} {self._document.get('status', 'not read yet')}>"

    @property
    def id(self) -> str:
        """``job_`` or ``swp_``, and 26 letters and digits."""
        return str(self._document["id"])

    @property
    def status(self) -> str:
        """``queued`` (a job), ``running``, ``paused``, ``succeeded``, ``failed`` or ``cancelled``."""
        return str(self._read("status"))

    @property
    def ended(self) -> bool:
        """Whether it has succeeded, failed or been cancelled."""
        return self.status in _ENDED

    def wait(
        self, *, timeout_s: float | None = None, outage_timeout_s: float = 60.0, progress: bool | None = None
    ) -> Self:
        """Wait until the end; ``status`` has the outcome.

        Args:
            outage_timeout_s: how long the service may be unavailable.
            progress: whether to show a line with the progress; by default in a terminal and in a notebook.

        Raises:
            TimeoutError: it has not ended in time.
        """
        return self._follow(timeout_s, outage_timeout_s, progress, html=None)

    def watch(self, *, timeout_s: float | None = None, outage_timeout_s: float = 60.0) -> None:
        """Wait until the end as ``wait`` does; a notebook shows all of it meanwhile, and updates it in place."""
        self._follow(timeout_s, outage_timeout_s, True, html=self._repr_html_)

    def _follow(
        self,
        timeout_s: float | None,
        outage_timeout_s: float,
        progress: bool | None,
        *,
        html: Callable[[], str] | None,
    ) -> Self:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        responded_at = time.monotonic()
        seen: Any = None
        with live(self._line, html, progress=progress) as show:
            while True:
                try:
                    self.refresh()
                    if (state := self._state()) != seen:
                        seen = state
                        show()
                except ServerUntrusted:
                    raise
                except ServerUnreachable:
                    if time.monotonic() - responded_at > outage_timeout_s:
                        raise
                else:
                    responded_at = time.monotonic()
                    if self.ended:
                        return self
                    if deadline is not None and time.monotonic() >= deadline:
                        text = f"{self._noun} {self.id} is still {self.status} after {timeout_s:g} s"
                        raise TimeoutError(f"{text}; {self._noun}.wait() waits on, {self._noun}.cancel() ends it")
                time.sleep(_POLL_INTERVAL_S)

    @abstractmethod
    def _state(self) -> Any:
        """What a display shows of the document: it is shown anew when this differs."""

    @abstractmethod
    def _line(self) -> str:
        """The progress in a line."""

    def events(
        self, *, after: int = 0, outage_timeout_s: float = 60.0, on_outage: OnOutage | None = None
    ) -> Iterator[Event]:
        """The events after number ``after``, as they happen, until the end.

        A broken connection is re-established, without lost or repeated events.

        Args:
            outage_timeout_s: how long the service may be unavailable.
            on_outage: called with true when the service has not responded for two seconds, with false when it responds
                again.
        """
        path = f"{self._path}/stream"
        return streams.events(
            self._connection, path, after=after, outage_timeout_s=outage_timeout_s, on_outage=on_outage
        )

    def cancel(self) -> Self:
        """Cancel it: a running job stops after the current batch; of a sweep, all unfinished jobs."""
        return self._act("cancel")

    def pause(self) -> Self:
        """Pause it: a running job after the current batch, with its last checkpoint; a sweep with its jobs."""
        return self._act("pause")

    def resume(self) -> Self:
        """Continue after a pause, a job from its last checkpoint."""
        return self._act("resume")

    def delete(self) -> None:
        """Delete an ended job, or a sweep with all its jobs, and all files."""
        with self._connection.response("DELETE", self._path):
            pass

    @property
    def _path(self) -> str:
        return f"/{self._noun}s/{segment(self.id)}"

    def _act(self, verb: str) -> Self:
        return self._set_document(self._connection.json("POST", f"{self._path}/{verb}"))


def once(body: Mapping[str, Any] | bytes | None, key: str | None) -> dict[str, Any]:
    """The options of a request that is safe to repeat: with this idempotency key, or a new one."""
    headers = {"Idempotency-Key": key or uuid4().hex}
    return {"repeatable": True} | ({"headers": headers} if body is None else json_body(body, **headers))
