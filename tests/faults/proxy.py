"""A TCP proxy that delays round trips, and breaks connections: refuses, drops or silences them, or cuts them right
after a COMMIT."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable


class Proxy:
    """Forwards bytes between clients and one server, until a fault is set.

    Args:
        delay_s: what a round trip takes longer: a connection, and the first bytes that a client sends after an answer.
    """

    def __init__(self, connect: Callable[[], socket.socket], *, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self.refusing = False
        self.silent = False
        """Read and discard all bytes: to each side, the other one seems to be alive."""
        self.cut_after: bytes | None = None
        """When a client has sent these bytes, forward them, and cut the connection before the response."""
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
            events = threading.Event(), threading.Event()
            for forward in (self._forward_requests, self._forward_responses):
                threading.Thread(target=forward, args=(pair, *events), daemon=True).start()

    def _forward_requests(
        self, pair: tuple[socket.socket, socket.socket], is_cut: threading.Event, is_answered: threading.Event
    ) -> None:
        client, server = pair
        is_answered.set()
        time.sleep(self._delay_s)  # the connection
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self.silent:
                    continue
                if is_answered.is_set():
                    is_answered.clear()
                    time.sleep(self._delay_s)
                if self.cut_after is not None and self.cut_after in data:
                    # Before they are forwarded: the response, and what the command changes, may be seen at once.
                    self.cut_after = None
                    self.cuts += 1
                    is_cut.set()
                server.sendall(data)
                if is_cut.is_set():
                    client.shutdown(socket.SHUT_RDWR)
                    return  # the server completes the command; its response closes the pair
        self._close(pair)

    def _forward_responses(
        self, pair: tuple[socket.socket, socket.socket], is_cut: threading.Event, is_answered: threading.Event
    ) -> None:
        client, server = pair
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if is_cut.is_set():
                    break
                is_answered.set()
                if not self.silent:
                    client.sendall(data)
        self._close(pair)

    @staticmethod
    def _close(pair: tuple[socket.socket, socket.socket]) -> None:
        for connection in pair:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
