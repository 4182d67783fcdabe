"""A TCP proxy that breaks connections: refuses, drops or silences them, or cuts them right after a COMMIT."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable


class Proxy:
    """Passes bytes on between clients and one server, until told otherwise."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self.refusing = False
        self.silent = False
        """Take bytes and pass nothing on: the other end seems to be alive."""
        self.cut_after: bytes | None = None
        """Once a client has sent this: the server gets it, and the client never hears what came of it."""
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> None:
        """Break all connections."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            self._close(pair)

    def close(self) -> None:
        self._listener.close()
        self.drop()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                client.close()
                continue
            try:
                pair = (client, self._connect())
            except OSError:
                client.close()
                continue
            with self._lock:
                self._pairs.append(pair)
            for source, sink, is_client in ((pair[0], pair[1], True), (pair[1], pair[0], False)):
                threading.Thread(target=self._pass_on, args=(source, sink, is_client, pair), daemon=True).start()

    def _pass_on(
        self, source: socket.socket, sink: socket.socket, is_client: bool, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.silent:
                    continue
                sink.sendall(data)
                if is_client and self.cut_after is not None and self.cut_after in data:
                    self.cut_after = None
                    self.cuts += 1
                    pair[0].shutdown(socket.SHUT_RDWR)  # the client first; the server finishes what it was told
                    sink.recv(1, socket.MSG_PEEK)
                    break
        self._close(pair)

    @staticmethod
    def _close(pair: tuple[socket.socket, socket.socket]) -> None:
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
