"""gunicorn's threaded worker, mended where one slow client could hold up everybody."""

from __future__ import annotations

import signal
import socket
import struct
from types import FrameType
from typing import Any, Final

from gunicorn.workers.gthread import ThreadWorker

from service.web.services import EXTENSION

_SILENCE_S: Final = 30
"""How long a client may take to send or to read the next bytes; streams are written to every 15 s."""


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Serves with threads; see the methods for what is different."""

    def init_process(self) -> None:
        """Limit what accepted sockets wait for: they inherit it from the one that listens."""
        limit = struct.pack("ll", _SILENCE_S, 0)
        for listener in self.sockets:
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                listener.sock.setsockopt(socket.SOL_SOCKET, option, limit)
        super().init_process()

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

    def handle(self, conn: Any) -> Any:
        """Linger over a closing connection here, in its thread: gunicorn does so in the loop that accepts."""
        result = super().handle(conn)
        if result is False:
            conn.close(graceful=True)
            conn.close = lambda graceful=False: None
        return result
