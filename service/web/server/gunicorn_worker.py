"""gunicorn's threaded worker, mended where a few clients could hold up everybody."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ
from types import FrameType
from typing import Any, Final

from gunicorn.workers.gthread import TConn, ThreadWorker

from service.web.server.arrivals import ARRIVALS, BODY_S
from service.web.server.descriptors import max_connections
from service.web.server.thread_pool import ThreadPool
from service.web.services import EXTENSION

_SILENCE_S: Final = 30
"""How long a client may take to send or to read the next bytes; streams are written to every 15 s."""
_FIRST_BYTE_S: Final = 15.0
"""How long a new connection may be silent."""
_CUT_EVERY_S: Final = 0.25
"""How often, at most, late arrivals are looked for: under load the loop comes round a thousand times a second."""
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 38\r\nRetry-After: 5\r\n"
    b"Connection: close\r\n\r\nToo many connections; try again later\n"
)


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Serves with threads; see the methods for what is different."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # gunicorn would stop accepting, and everybody would wait in the kernel's queue behind those who are idle.
        self._max_connections = max_connections(self.cfg.worker_connections)
        self.worker_connections = sys.maxsize
        self._spare: int | None = None
        self._next_cut = 0.0

    def init_process(self) -> None:
        """Limit what accepted sockets wait for: they inherit it from the one that listens."""
        limit = struct.pack("ll", _SILENCE_S, 0)
        for listener in self.sockets:
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                listener.sock.setsockopt(socket.SOL_SOCKET, option, limit)
        self._spare = _spare_descriptor()
        super().init_process()

    def get_thread_pool(self) -> ThreadPool:
        """Threads that end after a burst."""
        return ThreadPool(self.cfg.threads)

    def init_signals(self) -> None:
        """Let SIGTERM end the streams first: they would hold the process until ``graceful_timeout``."""
        super().init_signals()

        def stop(number: int, frame: FrameType | None) -> None:
            app = getattr(self, "wsgi", None)  # it may not be loaded yet
            if app is not None:
                here = app.extensions[EXTENSION]
                here.hub.closing = here.feed.closing = True
            self.handle_exit(number, frame)

        signal.signal(signal.SIGTERM, stop)

    def accept(self, listener: Any) -> None:
        """Let a connection wait for its first byte here: gunicorn would give it a thread to wait in."""
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:
                self._turn_away(listener)
            elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise
            return
        self.nr_conns += 1
        if self.nr_conns > self._max_connections and not self._drop_an_idle_one():
            self.nr_conns -= 1
            _refuse(client)
            return
        connection = TConn(self.cfg, client, address, listener.getsockname())
        connection.timeout = time.monotonic() + _FIRST_BYTE_S
        self.pending_conns.append(connection)
        self.poller.register(client, EVENT_READ, partial(self.on_pending_socket_readable, connection))

    def on_pending_socket_readable(self, conn: Any, client: socket.socket) -> None:
        """Serve a connection whose first byte is here, unless the same round of the loop has closed it already:
        its event was read before, and gunicorn's loop would end with a ``ValueError``."""
        if conn in self.pending_conns:
            super().on_pending_socket_readable(conn, client)

    def on_client_socket_readable(self, conn: Any, client: socket.socket) -> None:
        """As above, for a connection that was kept alive."""
        if conn in self.keepalived_conns:
            super().on_client_socket_readable(conn, client)

    def enqueue_req(self, conn: Any) -> None:
        """Serve a request in a thread; where none can be started, refuse: gunicorn's loop would end."""
        try:
            super().enqueue_req(conn)
        except RuntimeError:
            self.nr_conns -= 1
            _refuse(conn.sock)

    def murder_pending(self) -> None:
        """Also end what arrives too slowly; the loop comes here once a second, and oftener under load."""
        super().murder_pending()
        now = time.monotonic()
        if now >= self._next_cut:
            self._next_cut = now + _CUT_EVERY_S
            ARRIVALS.cut_off_late()

    def _cap_keepalive(self, deadline: float) -> None:
        """A worker that stops waits no longer for a first byte than for a next request."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def handle(self, conn: Any) -> Any:
        """Receive a request in limited time, and linger over a closing connection here, in its thread: gunicorn
        does so in the loop that accepts."""
        connection = conn.sock
        ARRIVALS.begin(connection, str(conn.client[0]) if isinstance(conn.client, tuple) else "")
        try:
            result = super().handle(conn)
        finally:
            ARRIVALS.end(connection)
        if result is False:
            conn.close(graceful=True)
            conn.close = lambda graceful=False: None
        return result

    def handle_request(self, req: Any, conn: Any) -> Any:
        """The header is here; where a body follows, it has its own time."""
        if any(name in ("CONTENT-LENGTH", "TRANSFER-ENCODING") and value != "0" for name, value in req.headers):
            ARRIVALS.extend(conn.sock, BODY_S)
        else:
            ARRIVALS.end(conn.sock)
        return super().handle_request(req, conn)

    def _drop_an_idle_one(self) -> bool:
        """Close the connection that has been idle for longest; ``False`` where each one has work."""
        for waiting in (self.pending_conns, self.keepalived_conns):
            if waiting:
                connection = waiting.popleft()
                with suppress(OSError, KeyError, ValueError):
                    self.poller.unregister(connection.sock)
                self.nr_conns -= 1
                connection.close()
                return True
        return False

    def _turn_away(self, listener: Any) -> None:
        """Out of descriptors: the spare one takes the connection off the kernel's queue, or the loop would spin."""
        if self._drop_an_idle_one():
            return
        if self._spare is None:
            time.sleep(0.05)
            self._spare = _spare_descriptor()
            return
        os.close(self._spare)
        self._spare = None
        with suppress(OSError):
            client, _ = listener.accept()
            _refuse(client)
        self._spare = _spare_descriptor()


def _refuse(client: socket.socket) -> None:
    with suppress(OSError):
        client.setblocking(False)
        client.send(_BUSY)
    client.close()


def _spare_descriptor() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return None
