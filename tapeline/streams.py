"""The event stream of a job, with reconnection."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import httpx
from httpx_sse import EventSource, SSEError

from tapeline.connection import (
    MIN_RETRY_DELAY_S,
    RETRYABLE_STATUSES,
    TOO_MANY_REQUESTS,
    Connection,
    check,
    reason_of,
    untrusted,
)
from tapeline.errors import ApiError, ServerUnreachable
from tapeline.method_types import Event

_MAX_SILENCE_S: Final = 45.0
"""The service sends a ping every 15 s; a stream that is silent for longer is considered dead."""
_UNNUMBERED: Final = ("snapshot", "progress")
_MIN_REPORTED_OUTAGE_S: Final = 2.0
"""Shorter outages are not reported."""

OnOutage = Callable[[bool], None]
"""Called with true after two seconds without a response, and with false when the service responds again."""


def events(
    connection: Connection,
    path: str,
    *,
    after: int = 0,
    outage_timeout_s: float = 60.0,
    on_outage: OnOutage | None = None,
) -> Iterator[Event]:
    """The events of a stream after number ``after``, until the job has ended.

    A broken connection is resumed: no event is lost or repeated, except ``snapshot`` and ``progress``, which have no
    number.

    Raises:
        ServerUnreachable: the service did not respond for longer than ``outage_timeout_s``.
    """
    last_seq, delay_s = after, MIN_RETRY_DELAY_S
    failing_since: float | None = None
    is_reported = False
    while True:
        reason = "the stream ended early"
        try:
            for event in _stream_events(connection, path, last_seq):
                if is_reported and on_outage is not None:
                    on_outage(False)
                is_reported = False
                if event is None:  # the job has ended, and has no events after this number
                    return
                failing_since = None
                if event.seq is not None:
                    if event.seq <= last_seq:
                        continue
                    last_seq, delay_s = event.seq, MIN_RETRY_DELAY_S
                yield event
                if event.type == "end":
                    return
        except (httpx.TransportError, SSEError) as error:
            if (refused := untrusted(connection.server, error)) is not None:
                raise refused from None
            reason = reason_of(error)
        except ApiError as error:
            if error.status not in RETRYABLE_STATUSES and error.status != TOO_MANY_REQUESTS:
                raise
            reason = error.detail
        now = time.monotonic()
        failing_since = failing_since or now
        outage_s = now - failing_since
        if outage_s > outage_timeout_s:
            raise ServerUnreachable(connection.server, reason)
        if outage_s >= _MIN_REPORTED_OUTAGE_S and not is_reported:
            is_reported = True
            if on_outage is not None:
                on_outage(True)
        time.sleep(delay_s if is_reported else min(delay_s, _MIN_REPORTED_OUTAGE_S - outage_s))
        delay_s = min(2 * delay_s, 5.0)


def _stream_events(connection: Connection, path: str, last_seq: int) -> Iterator[Event | None]:
    """The events of one connection; ``None`` if there are none after ``last_seq``."""
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if last_seq:
        headers["Last-Event-ID"] = str(last_seq)
    timeout = httpx.Timeout(_MAX_SILENCE_S, connect=5)
    with connection.http.stream("GET", path, headers=headers, timeout=timeout) as response:
        check(response)
        if response.status_code == 204:
            yield None
            return
        for message in EventSource(response).iter_sse():
            # Like browsers, httpx-sse repeats the last id on events without an id.
            is_numbered = message.event not in _UNNUMBERED
            seq = int(message.id) if is_numbered and message.id.isdecimal() else None
            with suppress(json.JSONDecodeError):
                yield Event(message.event, json.loads(message.data), seq)
