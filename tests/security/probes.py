"""Requests that another process repeats during an attack, to measure what the attack costs others."""

from __future__ import annotations

import http.client
import multiprocessing
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Final

PROBE_INTERVAL_S: Final = 0.02
FORM_TYPE: Final = "multipart/form-data; boundary=part"


def form_of(field: str, data: bytes, **texts: str) -> bytes:
    """The form of an upload: a file, and other fields."""
    head = "".join(
        f'--part\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in texts.items()
    )
    head += f'--part\r\nContent-Disposition: form-data; name="{field}"; filename="file"\r\n\r\n'
    return head.encode() + data + b"\r\n--part--\r\n"


@dataclass(frozen=True)
class Probe:
    """A request that is repeated during an attack."""

    path: str = "/healthz"
    method: str = "GET"
    body: bytes = b""
    """Each ``{number}`` becomes the number of the request, in six digits."""
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 10.0

    def send(self, port: int, number: int) -> bool:
        """Send it on a new connection; returns whether it succeeded."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=self.timeout_s)
        try:
            body = self.body.replace(b"{number}", b"%06d" % number)
            connection.request(self.method, self.path, body, dict(self.headers))
            response = connection.getresponse()
            return bool(response.read()) and response.status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _probe(port: int, probe: Probe, pipe: Connection) -> None:
    """Send a probe repeatedly, as a monitor does, until told to stop.

    Sends the response times in seconds at the end; a failure counts as infinite.
    """
    pipe.send("ready")
    times = list[float]()
    while not pipe.poll(PROBE_INTERVAL_S):
        began = time.perf_counter()
        succeeded = probe.send(port, len(times))
        times.append(time.perf_counter() - began if succeeded else float("inf"))
    pipe.send(times)


@contextmanager
def probed(port: int, probe: Probe | None, times: list[float]) -> Iterator[None]:
    """Probe during the block, in a separate process: the attacker's threads must not slow down the probe."""
    if probe is None:
        yield
        return
    spawn = multiprocessing.get_context("spawn")
    parent_end, child_end = spawn.Pipe()
    process = spawn.Process(target=_probe, args=(port, probe, child_end), daemon=True)
    process.start()
    parent_end.recv()  # it is ready
    try:
        yield
    finally:
        parent_end.send("stop")
        times += parent_end.recv()
        process.join()
