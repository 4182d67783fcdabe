"""What ``tapeline doctor`` tries on an artifact store: everything that the service needs of a bucket."""

from __future__ import annotations

import email.utils
import errno
import http.client
import os
import secrets
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from service.storage.artifacts import ArtifactDamaged, ArtifactStore

MAX_SECONDS: Final = 20.0
"""For all probes together."""
_PROBE_JOB: Final = "job_probe"
"""A job that does not exist: probes that a killed process leaves behind are removed as orphans."""
_RACERS: Final = 8
_SMALL: Final = b"probe"
_LARGE_BYTES: Final = 2 * 2**20 + 2**16
"""More than the first request for a file reads."""
_HTTP_TIMEOUT_S: Final = 3.0
_MAX_CLOCK_OFFSET_S: Final = 60.0
"""Requests are refused at 15 minutes."""


def examine(store: ArtifactStore, *, url: str, endpoint: str, ca: str = "") -> str:
    """Try the store, in a thread, for at most ``MAX_SECONDS``; returns what an operator should know.

    Args:
        url: ``TAPELINE_STORE``; empty: a folder, which is only written to.
        endpoint: ``TAPELINE_STORE_ENDPOINT``.
        ca: file with certificate authorities besides those of the system.

    Raises:
        OSError: the store cannot be used; the message names a remedy.
    """
    if not url:
        store.check_writable()
        return f"{store.address} is writable"
    return _Probes(store, url, endpoint, ca).run()


class _Probes:
    def __init__(self, store: ArtifactStore, url: str, endpoint: str, ca: str) -> None:
        self._store, self._url, self._endpoint, self._ca = store, url, endpoint, ca
        self._paths = [f"{_PROBE_JOB}/probe/{secrets.token_hex(8)}" for _ in range(3)]
        self._stage = "a connection"
        self._notes: list[str] = []
        self._error: BaseException | None = None

    def run(self) -> str:
        thread = threading.Thread(target=self._try_all, daemon=True)
        thread.start()
        thread.join(MAX_SECONDS)
        if thread.is_alive():
            text = f"the store is silent or too slow: {self._stage} took too long, of {MAX_SECONDS:.0f} s in all"
            raise OSError(errno.ETIMEDOUT, text)
        if self._error is not None:
            raise self._error
        return "; ".join([f"{self._store.address} is writable{self._notes[0]}", *self._notes[1:]])

    def _try_all(self) -> None:
        try:
            self._compare_clocks()
            self._store.prepare()
            self._measure()
            self._read_ranges()
            self._race()
            self._list()
            self._delete()
        except ArtifactDamaged as error:
            self._error = OSError(errno.EIO, f"the store returns other bytes than were stored: {error.reason}")
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            self._error = error
        finally:
            with suppress(OSError):
                self._store.remove(self._paths)

    def _compare_clocks(self) -> None:
        """By the ``Date`` of any answer; if there is none, the next request tells why."""
        self._stage = "the clock"
        headers = _headers(self._url, self._endpoint, self._ca)
        try:
            offset_s = time.time() - email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp()
        except ValueError:
            return
        if abs(offset_s) > _MAX_CLOCK_OFFSET_S:
            side = "ahead of" if offset_s > 0 else "behind"
            text = f"this machine's clock is {abs(offset_s):.0f} s {side} the store's: synchronize it with NTP"
            raise OSError(errno.EPERM, f"{text}, since requests are refused at 15 minutes")
        region = headers.get("x-amz-bucket-region", "")
        if not self._endpoint and region and region != _region():
            raise OSError(errno.EPERM, f"the bucket is in the region {region}: set AWS_REGION to it")

    def _measure(self) -> None:
        self._stage = "storing an object"
        started_at = time.monotonic()
        self._store.put_all({self._paths[0]: _SMALL})
        put_ms = 1000 * (time.monotonic() - started_at)
        self._stage = "reading an object"
        started_at = time.monotonic()
        with self._store.open(self._paths[0]) as file:
            if file.read() != _SMALL:
                raise ArtifactDamaged(self._paths[0], "a small object")
        self._notes.append(
            f": {put_ms:.0f} ms to store a small object, {1000 * (time.monotonic() - started_at):.0f} to read it"
        )

    def _read_ranges(self) -> None:
        self._stage = "storing 2 MB"
        data = os.urandom(_LARGE_BYTES)
        self._store.put_all({self._paths[1]: data})
        self._stage = "reading a range"
        with self._store.open(self._paths[1]) as file:
            file.seek(_LARGE_BYTES - 1000)
            if file.read() != data[-1000:]:
                raise ArtifactDamaged(self._paths[1], "its last 1000 bytes; does a proxy ignore Range?")

    def _race(self) -> None:
        """No file depends on it: names are never used twice."""
        self._stage = "a race for a name"
        errors: list[OSError] = []

        def create() -> None:
            try:
                self._store.put_all({self._paths[2]: _SMALL})
            except OSError as error:
                errors.append(error)

        # Not in an executor, for whose threads the process would wait.
        racers = [threading.Thread(target=create, daemon=True) for _ in range(_RACERS)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        if other := next((error for error in errors if not isinstance(error, FileExistsError)), None):
            raise other
        if (winners := _RACERS - len(errors)) != 1:
            self._notes.append(
                f"it lets {winners} of {_RACERS} create one name (no file depends on it: names are never used twice)"
            )

    def _list(self) -> None:
        self._stage = "a list"
        if not set(self._paths) <= {item.path for item in self._store.stored(_PROBE_JOB)}:
            self._notes.append("its list lacks what was just stored")

    def _delete(self) -> None:
        self._stage = "deleting objects"
        self._store.remove(self._paths)
        with suppress(ArtifactDamaged):
            self._store.open(self._paths[0]).close()
            self._notes.append("a deleted object can still be read")


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def _headers(url: str, endpoint: str, ca: str) -> dict[str, str]:
    """The headers of an answer to a request without credentials; empty if there is none."""
    parts = urlsplit(url)
    hosts = {"s3": f"https://s3.{_region()}.amazonaws.com", "gs": "https://storage.googleapis.com"}
    address = urlsplit(endpoint or hosts.get(parts.scheme, ""))
    if not address.hostname:
        return {}  # of Azure, the account has the host
    connect: Callable[..., http.client.HTTPConnection] = http.client.HTTPConnection
    if address.scheme == "https":
        trusted = ssl.create_default_context()
        if ca:
            trusted.load_verify_locations(ca)
        connect = partial(http.client.HTTPSConnection, context=trusted)
    connection = connect(address.hostname, address.port, timeout=_HTTP_TIMEOUT_S)
    try:
        connection.request("HEAD", f"/{parts.netloc}")
        return {name.lower(): value for name, value in connection.getresponse().getheaders()}
    except (OSError, http.client.HTTPException):
        return {}
    finally:
        connection.close()
