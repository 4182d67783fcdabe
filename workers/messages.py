"""Messages between a supervisor and its child, as JSON objects on two pipes: commands to the child, reports back."""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any, Final, cast, get_args

from pydantic import TypeAdapter

from service.jobs.leases import Claim
from service.runtime.tracing import Span
from service.states import MachineFaultReason, Request
from workers.operations import Call, Reply

_PROGRESS_INTERVAL_S: Final = 0.1
_REPLY: Final = f'["{Reply.__name__}"'.encode()


@dataclass(frozen=True, slots=True)
class Train:
    """Command: train this job."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Stop:
    """Command: release the job after the current batch."""

    request: Request | None
    """What a user requested; ``None``: the worker stops."""


@dataclass(frozen=True, slots=True)
class ChildReady:
    """Report: everything is loaded."""

    provenance: Mapping[str, Any]
    """The provenance of every job in this process, except that of its data."""


@dataclass(frozen=True, slots=True)
class Preparing:
    """Report: the command arrived, or a download made progress; no batch yet."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Report: a batch is finished."""

    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class MachineFault:
    """Report: the job cannot be trained on this machine, and is released."""

    reason: MachineFaultReason
    message: str
    folder: str | None = None
    """Where a file could not be stored or read."""
    size_bytes: int = 0
    """The size of the file, or of the memory, without ``folder``, that is needed."""


@dataclass(frozen=True, slots=True)
class Done:
    """Last report on a job: the lease has ended."""

    outcome: str
    is_reusable: bool = False
    """Whether the child waits for another command; otherwise it exits."""


Command = Train | Stop | Reply
Report = ChildReady | Preparing | Progress | MachineFault | Call | Done | Span
"""A span is exported when it arrives; a monitor does not see it."""


_TYPES: Final = {kind.__name__: TypeAdapter[Command | Report](kind) for kind in get_args(Command | Report)}


def encode(message: Command | Report) -> bytes:
    """Encode a message as JSON: its name and its fields."""
    members = {name: getattr(message, name) for name in message.__slots__}
    return json.dumps([type(message).__name__, members], default=asdict).encode()


def decode(data: bytes) -> Command | Report:
    """Decode a message.

    Raises:
        ValueError: ``data`` is not a message.
    """
    match json.loads(data):
        case [str(name), dict(fields)] if name in _TYPES:
            return _TYPES[name].validate_python(fields)
    raise ValueError("not a message")


class StopRequested(Exception):
    """The supervisor ordered the child to release the job."""

    is_failure: Final = False  # of a span


class ChildEndpoint:
    """The child's end of the pipes. If the supervisor's end closes, the process exits, to never train unsupervised."""

    def __init__(self, commands: Connection, reports: Connection) -> None:
        self._reports = reports
        self._send_lock = threading.Lock()  # the thread that stores epochs sends, too
        self._last_progress = 0.0
        self._work: queue.SimpleQueue[Train] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._call_lock = threading.Lock()
        self.stopping = False
        """Whether a stop was ordered under the current command; checked after each batch."""
        self.request: Request | None = None
        """The user's request that caused the stop; ``None``: the worker stops."""
        threading.Thread(target=self._read, args=(commands,), name="commands", daemon=True).start()

    def next_command(self) -> Train:
        """Wait for the next command."""
        return self._work.get()

    def send(self, report: Report) -> None:
        """Send a report."""
        try:
            with self._send_lock:
                self._reports.send_bytes(encode(report))
        except BrokenPipeError:
            os._exit(3)  # the supervisor is gone

    def call(self, claim: Claim, message: Call) -> Reply:
        """Have the supervisor execute an operation on the claimed job, one at a time; waits for the reply."""
        with self._call_lock:
            self.send(message)
            return cast(Reply, decode(self._replies.get()))

    def check_stop(self) -> None:
        """Raise ``StopRequested`` if the supervisor has ordered a stop."""
        if self.stopping:
            raise StopRequested

    def report_progress(self, report: Progress | Preparing) -> None:
        """Report a finished batch, or that the child is alive although it does not train yet. Call it as often as
        possible; it sends at most ten reports per second."""
        now = time.monotonic()
        if now - self._last_progress >= _PROGRESS_INTERVAL_S:
            self._last_progress = now
            self.send(report)

    def _read(self, commands: Connection) -> None:
        try:
            while True:
                data = commands.recv_bytes()
                if data.startswith(_REPLY):  # may be large: the thread that waits for it decodes it
                    self._replies.put(data)
                    continue
                match decode(data):
                    case Stop(request):
                        self.request = request
                        self.stopping = True
                    case Train() as work:
                        # A stop that crossed the report of the job's end was for that job: commands arrive in order.
                        self.stopping, self.request = False, None
                        self._last_progress = 0.0
                        self._work.put(work)
        finally:
            os._exit(3)  # the supervisor is gone, or this thread failed and could not receive a stop
