"""gunicorn's event loop, one round at a time, with real sockets."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.sock import TCPSocket

from service.web.server.gunicorn_worker import Worker
from tests.waiting import wait_until


@dataclass
class Loop:
    """A worker whose event loop the test runs round by round, and the clients that the test connected."""

    worker: Any
    listener: Any
    exit_stack: ExitStack
    clients: list[socket.socket] = field(default_factory=list)

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.listener.sock.getsockname(), timeout=5)
        self.exit_stack.enter_context(client)
        self.clients.append(client)
        return client

    def run_round(self) -> None:
        self.worker.wait_for_and_dispatch_events(timeout=1.0)


@pytest.fixture
def loop() -> Iterator[Loop]:
    settings = Config()
    settings.set("threads", 2)
    log = Logger(settings)
    with ExitStack() as stack:
        listener = TCPSocket(("127.0.0.1", 0), settings, log)
        stack.callback(listener.close)
        worker = Worker(1, 0, [listener], None, 60, settings, log)
        stack.callback(worker.tmp.close)
        worker.tpool = worker.get_thread_pool()
        stack.callback(worker.tpool.shutdown)
        worker.poller = stack.enter_context(selectors.DefaultSelector())
        worker.set_accept_enabled(True)
        yield Loop(worker, listener, stack)
        worker._cap_keepalive(0.0)
        worker.murder_pending()


def test_a_connection_closed_earlier_in_the_same_round_does_not_end_the_loop(loop: Loop) -> None:
    loop.worker._max_connections = 1
    idle = loop.connect()
    loop.run_round()
    loop.connect()  # for which the idle connection is closed,
    idle.sendall(b"G")  # whose first byte arrives in the same round
    wait_until(lambda: len(loop.worker.poller.select(0)) == 2, "both sockets to be readable")
    loop.run_round()
    assert loop.worker.nr_conns == 1
    with pytest.raises(ConnectionResetError):
        idle.recv(1)


def test_without_a_free_thread_the_client_gets_a_503_with_retry_after(loop: Loop) -> None:
    loop.worker.tpool.shutdown()  # from now on it raises the same error as if no thread could be started
    client = loop.connect()
    loop.run_round()
    client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    loop.run_round()
    answer = client.recv(1000)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 5\r\n" in answer
    assert loop.worker.nr_conns == 0


def test_a_stopping_worker_does_not_wait_for_clients_that_send_nothing(loop: Loop) -> None:
    loop.connect()
    loop.run_round()
    loop.worker._cap_keepalive(time.monotonic())
    loop.worker.murder_pending()
    assert loop.worker.nr_conns == 0
