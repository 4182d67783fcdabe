"""``pytest --forks N``: run the tests in N processes that are forked after the collection.

The collection imports every test module, and what it tests: here that is done once. The processes take chunks of
consecutive tests, one after the other, and send their reports to the first process, which passes them to pytest's
plugins. A process that dies fails the test that it was running; another one runs the rest of its chunk.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, groupby
from typing import Any, Final, NoReturn

import pytest

_CHUNK: Final = 12
"""Maximum number of tests that a process takes at a time. They are of one module, and may share its fixtures."""
_RECEIVED: Final = 2**16


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("forks").addoption(
        "--forks", type=int, default=0, metavar="N", help="run the tests in N processes, forked after the collection"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the collected tests, in place of pytest's own loop."""
    options = session.config.option
    if options.forks < 2 or options.collectonly or not session.items or session.testsfailed:
        return None
    if (threads := _threads()) > 1:
        raise pytest.UsageError(
            f"there are {threads} threads before the first test, which do not survive a fork: import what starts them "
            "(such as a library written in Go) in the tests that use it, and set OPENBLAS_NUM_THREADS=1"
        )
    _Run(session).run(options.forks)
    return True


def _threads() -> int:
    """Those of libraries included, where the system tells of them."""
    with suppress(FileNotFoundError):
        return len(os.listdir("/proc/self/task"))
    return threading.active_count()


@dataclass
class _Child:
    """A forked process, as the first one sees it."""

    pid: int
    name: str
    socket: socket.socket
    received: bytes = b""
    """The beginning of a message."""
    tests: list[int] = field(default_factory=list)
    """The numbers of the tests that it has taken and not finished; it runs the first."""


def _folders(config: pytest.Config) -> Any:
    """The factory behind ``tmp_path``; the attribute is private, since tests get it as a fixture."""
    return vars(config)["_tmp_path_factory"]


class _Run:
    """The first process: forks the others, hands out the tests, and passes on the reports."""

    def __init__(self, session: pytest.Session) -> None:
        self._session, self._config = session, session.config
        self._chunks = _chunks(session.items)
        self._numbers = count()
        self._children = list[_Child]()
        self._selector = selectors.DefaultSelector()
        _folders(self._config).getbasetemp()  # the folder that they share

    def run(self, processes: int) -> None:
        for _ in range(min(processes, len(self._chunks))):
            self._fork()
        try:
            while self._children:
                for key, _ in self._selector.select():
                    self._receive(key.data)
                    self._raise_if_stopped()
        finally:
            for child in self._children:
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)

    def _fork(self) -> None:
        ours, theirs = socket.socketpair()
        name = f"fork{next(self._numbers)}"
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _work(self._session, theirs, name)
        theirs.close()
        child = _Child(pid, name, ours)
        self._children.append(child)
        self._selector.register(ours, selectors.EVENT_READ, child)

    def _receive(self, child: _Child) -> None:
        data = b""
        with suppress(ConnectionResetError):
            data = child.socket.recv(_RECEIVED)
        if not data:
            self._bury(child)
            return
        *messages, child.received = (child.received + data).split(b"\n")
        for message in messages:
            self._handle(child, json.loads(message))

    def _handle(self, child: _Child, message: dict[str, Any]) -> None:
        hook = self._config.hook
        match message:
            case {"wants": "tests"}:
                chunk = self._next_chunk()
                child.tests += chunk
                _send(child.socket, chunk)
            case {"report": data}:
                report = hook.pytest_report_from_serializable(config=self._config, data=data)
                if isinstance(report.longrepr, list):  # of a skipped test, before JSON made it a list
                    report.longrepr = tuple(report.longrepr)
                hook.pytest_runtest_logreport(report=report)
            case {"finished": number}:
                child.tests.remove(number)
                item = self._session.items[number]
                hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def _next_chunk(self) -> list[int]:
        if not self._chunks:
            return []
        chunk = self._chunks.pop(0)
        if len(chunk) > 1 and len(self._chunks) < len(self._children):
            # Near the end, so that no process waits for another that has many tests left.
            half = (len(chunk) + 1) // 2
            self._chunks.insert(0, chunk[half:])
            chunk = chunk[:half]
        return chunk

    def _bury(self, child: _Child) -> None:
        """A process has ended: all is done, or it has died."""
        self._selector.unregister(child.socket)
        child.socket.close()
        self._children.remove(child)
        _, status = os.waitpid(child.pid, 0)
        if not child.tests:
            return
        item = self._session.items[child.tests.pop(0)]
        text = f"{child.name} crashed while running {item.nodeid} (exit code {os.waitstatus_to_exitcode(status)})"
        report = pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call")
        self._config.hook.pytest_runtest_logreport(report=report)
        if child.tests:
            self._chunks.insert(0, child.tests)
        if self._chunks:
            self._fork()

    def _raise_if_stopped(self) -> None:
        if self._session.shouldfail:
            raise self._session.Failed(self._session.shouldfail)
        if self._session.shouldstop:
            raise self._session.Interrupted(self._session.shouldstop)


def _chunks(items: Sequence[pytest.Item]) -> list[list[int]]:
    chunks = list[list[int]]()
    for _, group in groupby(range(len(items)), key=lambda number: items[number].path):
        numbers = list(group)
        chunks += [numbers[start : start + _CHUNK] for start in range(0, len(numbers), _CHUNK)]
    return chunks


def _work(session: pytest.Session, connection: socket.socket, name: str) -> NoReturn:
    """A forked process: run tests until there are no more."""
    code = 1
    try:
        _prepare(session.config, connection, name)
        tests = _taken(connection)
        number = next(tests, None)
        while number is not None:
            following = next(tests, None)  # what both tests use stays
            next_item = None if following is None else session.items[following]
            item = session.items[number]
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=next_item)
            _send(connection, {"finished": number})
            number = following
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)  # the rest of pytest's session belongs to the first process


def _prepare(config: pytest.Config, connection: socket.socket, name: str) -> None:
    """Give the process its own folder, and have it send reports instead of printing them."""
    folders = _folders(config)
    folders._basetemp = folders.getbasetemp() / name
    folders._basetemp.mkdir(mode=0o700)
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    terminal._tw._file = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends

    class Sender:
        @staticmethod
        def pytest_runtest_logreport(report: pytest.TestReport) -> None:
            data = config.hook.pytest_report_to_serializable(config=config, report=report)
            _send(connection, {"report": data})

    config.pluginmanager.register(Sender())


def _taken(connection: socket.socket) -> Iterator[int]:
    """The numbers of the tests that this process runs."""
    stream = connection.makefile("rb")
    while True:
        _send(connection, {"wants": "tests"})
        numbers = json.loads(stream.readline())
        if not numbers:
            return
        yield from numbers


def _send(connection: socket.socket, message: Any) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")
