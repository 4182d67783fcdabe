"""The loop of every stream: it sends what is new, and pings while nothing is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from service.web.streaming.messages import PING, PingTimer, chunks
from service.web.streaming.poller import Listener, Poller, View
from service.web.streaming.response import StreamClient

_WAIT_S: Final = 1.0
"""How often an idle stream checks whether its connection is closed."""


@dataclass(frozen=True, slots=True)
class News:
    """What a client has not been sent yet."""

    texts: Sequence[str] = ()
    """Encoded events."""
    has_more: bool = False
    """Whether to read again at once."""
    is_last: bool = False


def stream(poller: Poller, listener: Listener, client: StreamClient, read: Callable[[View], News]) -> Iterator[str]:
    """The text of one client's stream, until the last news, or until the process ends, the object is gone, or the
    client has disconnected or lost its permission.

    Args:
        read: the news in what the last poll found.
    """
    ping = PingTimer(poller.ping_s)
    while not poller.closing and client.permission:
        news = read(listener.view)
        yield from chunks(news.texts)
        if news.is_last:
            return
        if news.texts:
            ping.restart()
        if news.has_more:
            continue
        if ping.is_due():
            yield PING
        listener.wait(_WAIT_S)
        if listener.view.gone or client.has_left:
            return
