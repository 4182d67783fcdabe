"""gunicorn's threaded worker, hardened against clients that block others.

gunicorn 27's own ``gthread`` was tried in its place, with the tests of this folder: streams do not end on SIGTERM or at
a reload, and requests that never arrive in full, slow uploads and idle connections lock other clients out. The shipped
proxy limits the time of a header alone, and `tapeline up` has none.
"""

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

from service.web.core.core import provided
from service.web.http.request_limits import ARRIVALS, BODY_S
from service.web.server.balance import CONNECTIONS, POLL_INTERVAL_S, AcceptThrottle, max_connections
from service.web.server.thread_pool import ThreadPool
from service.web.streaming.poller import Poller

_SOCKET_TIMEOUT_S: Final = 30
"""Socket timeout for the next bytes in either direction; streams send something every 15 s."""
_FIRST_BYTE_S: Final = 15.0
"""How long a new connection may take to send its first byte."""
_ABORT_INTERVAL_S: Final = 0.25
"""Minimum time between checks for overdue requests: under load the loop runs a thousand times per second."""
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 38\r\nRetry-After: 5\r\n"
    b"Connection: close\r\n\r\nToo many connections; try again later\n"
)


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's ``ThreadWorker``; the docstrings of the methods describe the differences."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # At its own limit, gunicorn would stop accepting: new clients would wait in the kernel's queue for idle ones.
        self._max_connections = max_connections(self.cfg.worker_connections)
        self.worker_connections = sys.maxsize
        self._spare: int | None = None
        self._next_abort = 0.0
        self._throttle = AcceptThrottle(self.age)

    def init_process(self) -> None:
        """Set socket timeouts on the listeners, from which accepted sockets inherit them."""
        timeout = struct.pack("ll", _SOCKET_TIMEOUT_S, 0)
        for listener in self.sockets:
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                listener.sock.setsockopt(socket.SOL_SOCKET, option, timeout)
        self._spare = _spare_descriptor()
        super().init_process()

    def get_thread_pool(self) -> ThreadPool:
        """A pool whose idle threads end."""
        return ThreadPool(self.cfg.threads)

    def init_signals(self) -> None:
        """On SIGTERM, end the streams first: otherwise the process would wait for them until ``graceful_timeout``."""
        super().init_signals()

        def stop(signal_number: int, frame: FrameType | None) -> None:
            app = getattr(self, "wsgi", None)  # it may not be loaded yet
            if app is not None:
                provided(Poller, app).closing = True
            self.handle_exit(signal_number, frame)

        signal.signal(signal.SIGTERM, stop)

    def accept(self, listener: Any) -> None:
        """Wait for the first byte of a connection in the event loop; gunicorn would use a thread. A process that has
        more connections than another lets that one accept first."""
        if self._throttle.should_yield(self.nr_conns):
            self.worker_connections = 0  # gunicorn's loop stops accepting, and serves its requests
            return
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                self._refuse_next(listener)
            elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise
            return
        self.nr_conns += 1
        CONNECTIONS.set(self.age, self.nr_conns)
        if self.nr_conns > self._max_connections and not self._close_idle_connection():
            self.nr_conns -= 1
            _refuse(client)
            return
        connection = TConn(self.cfg, client, address, listener.getsockname())
        connection.timeout = time.monotonic() + _FIRST_BYTE_S
        self.pending_conns.append(connection)
        self.poller.register(client, EVENT_READ, partial(self.on_pending_socket_readable, connection))

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Accept connections again once this process no longer yields."""
        if not self.worker_connections:
            remaining_s = self._throttle.remaining_s(self.nr_conns)
            self.worker_connections = 0 if remaining_s else sys.maxsize
            timeout = min(timeout, POLL_INTERVAL_S)
        super().wait_for_and_dispatch_events(timeout=timeout)

    def on_pending_socket_readable(self, conn: Any, client: socket.socket) -> None:
        """Serve a connection whose first byte has arrived, unless it was closed in the same round of the
        event loop: gunicorn's loop would then end with a ``ValueError``."""
        if conn in self.pending_conns:
            super().on_pending_socket_readable(conn, client)

    def on_client_socket_readable(self, conn: Any, client: socket.socket) -> None:
        """The same for a kept-alive connection."""
        if conn in self.keepalived_conns:
            super().on_client_socket_readable(conn, client)

    def enqueue_req(self, conn: Any) -> None:
        """Serve a request in a thread. If none can be started, refuse the request; gunicorn's loop would
        end."""
        try:
            super().enqueue_req(conn)
        except RuntimeError:
            self.nr_conns -= 1
            _refuse(conn.sock)

    def murder_pending(self) -> None:
        """Also abort overdue requests, and publish the number of connections. The event loop calls this once per
        second, and more often under load."""
        super().murder_pending()
        if self.alive:  # a process that stops accepts none
            CONNECTIONS.set(self.age, self.nr_conns)
        now = time.monotonic()
        if now >= self._next_abort:
            self._next_abort = now + _ABORT_INTERVAL_S
            ARRIVALS.abort_overdue()

    def _cap_keepalive(self, deadline: float) -> None:
        """At shutdown, limit the wait for a first byte like the wait for the next request."""
        super()._cap_keepalive(deadline)
        CONNECTIONS.remove(self.age)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def handle(self, conn: Any) -> Any:
        """Receive a request with a deadline, and close the connection gracefully in this thread; gunicorn does so in
        the event loop."""
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
        """After the header, set the deadline of the body, if there is one."""
        if any(name in ("CONTENT-LENGTH", "TRANSFER-ENCODING") and value != "0" for name, value in req.headers):
            ARRIVALS.extend(conn.sock, BODY_S)
        else:
            ARRIVALS.end(conn.sock)
        return super().handle_request(req, conn)

    def _close_idle_connection(self) -> bool:
        """Close the connection that has been idle longest; ``False`` if none is idle."""
        for idle_connections in (self.pending_conns, self.keepalived_conns):
            if idle_connections:
                connection = idle_connections.popleft()
                with suppress(OSError, KeyError, ValueError):
                    self.poller.unregister(connection.sock)
                self.nr_conns -= 1
                connection.close()
                return True
        return False

    def _refuse_next(self, listener: Any) -> None:
        """Out of descriptors: accept the connection with the spare one and refuse it; otherwise the loop would spin."""
        if self._close_idle_connection():
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
