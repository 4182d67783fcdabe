"""Real servers that speak S3, and an HTTP proxy before them that misbehaves."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.waiting import wait_until

BUCKET = "bucket"
KEY, SECRET = "tapeline", "secret-of-the-tests"


@contextmanager
def serve_seaweedfs(
    folder: Path, ports: Sequence[int] | None = None, certificates: Path | None = None
) -> Iterator[str]:
    """Run SeaweedFS with its data in ``folder``; yields the URL of its S3 server, which has one bucket. At the end it
    is killed; with the same eight ports, it can be started again.

    Args:
        certificates: folder with ``ca.crt``, ``server.crt`` and ``server.key``, for https.
    """
    parts = ("master", "volume", "filer", "s3")
    ports = ports or free_ports(2 * len(parts))
    identity = {"name": "t", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    flags = [f"-{part}.port={port}" for part, port in zip(parts, ports[:4], strict=True)]
    flags += [f"-{part}.port.grpc={port}" for part, port in zip(parts, ports[4:], strict=True)]
    flags += [f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-master.telemetry=false"]
    flags += ["-master.electionTimeout=1s", "-master.heartbeatInterval=200ms"]  # otherwise, a restart takes 20 seconds
    flags += ["-master.volumeSizeLimitMB=64", "-volume.max=100", "-volume.minFreeSpace=1"]
    flags += [f"-s3.config={folder / 's3.json'}", "-s3.autoCreateBucket=false"]
    flags += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    flags += [f"-{part}.localSocket={folder / part}.sock" for part in ("filer", "s3")]
    if certificates is not None:
        flags += [f"-s3.cert.file={certificates / 'server.crt'}", f"-s3.key.file={certificates / 'server.key'}"]
    command = [str(Path(sys.executable).with_name("weed")), f"-logdir={folder}", "server", *flags]
    with _serve(command, folder / "seaweedfs.log", ports[3], certificates) as url:
        yield url


@contextmanager
def serve_moto(folder: Path) -> Iterator[str]:
    """Run the S3 server of moto, which keeps everything in memory and accepts all credentials."""
    (port,) = free_ports(1)
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _serve(command, folder / "moto.log", port) as url:
        yield url


@contextmanager
def _serve(command: list[str], log: Path, port: int, certificates: Path | None = None) -> Iterator[str]:
    url = f"http{'s' if certificates else ''}://127.0.0.1:{port}"
    authority = str(certificates / "ca.crt") if certificates else None
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent)
    try:

        def is_created() -> bool:
            assert process.poll() is None, log.read_text()[-2000:]
            return _create_bucket(url, authority)

        wait_until(is_created, f"the bucket of {command[0]}: {log}")
        yield url
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _create_bucket(url: str, authority: str | None) -> bool:
    import boto3  # imported here: it takes half a second
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1})
    options: dict[str, Any] = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=url, config=config, verify=authority, **options)
    try:
        with suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
            client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key="ready", Body=b"")  # a volume to write to is there, too
    except (BotoCoreError, ClientError):
        return False
    finally:
        client.close()
    return True


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    with ExitStack() as stack:
        return [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


@dataclass
class Exchange:
    """A request, and the answer of the server behind the proxy."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int = 0
    answer_headers: list[tuple[str, str]] | None = None
    answer: bytes = b""


Fault = Callable[[Exchange], str | tuple[int, bytes] | None]
"""What happens to a request: ``None``: nothing; a status and a body: this answer, and the server gets nothing;
``lose``: the server gets it, and the answer is lost; ``cut``: half of the answer; ``flip``: another answer of the same
size; ``drip``: the answer at 1 KB/s; ``hang``: no answer until the proxy is closed."""


class FaultyProxy:
    """Forwards HTTP requests to a server, except those that meet ``fault``."""

    def __init__(self, upstream: str) -> None:
        self.fault: Fault = lambda exchange: None
        self.requests: list[tuple[str, str, int]] = []
        """Method, path and status of each answer; status 0: none was sent."""
        self.is_closed = threading.Event()
        self.upstream = address = upstream.removeprefix("http://")
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def handle_any(self) -> None:
                proxy._handle(self, address)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any  # noqa: N815 - names of the base class

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.is_closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handle(self, handler: BaseHTTPRequestHandler, address: str) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        exchange = Exchange(handler.command, handler.path, dict(handler.headers), body)
        fault = self.fault(exchange)
        if fault == "hang":
            self.is_closed.wait()
        if isinstance(fault, tuple):
            exchange.status, exchange.answer = fault
            exchange.answer_headers = []
        elif fault != "hang":
            self._forward(exchange, address)
        lost = fault in ("lose", "hang")
        self.requests.append((exchange.method, exchange.path, 0 if lost else exchange.status))
        with suppress(OSError):
            if not lost:
                self._answer(handler, exchange, fault if isinstance(fault, str) else "")
        if fault is not None:
            handler.close_connection = True

    @staticmethod
    def _forward(exchange: Exchange, address: str) -> None:
        connection = http.client.HTTPConnection(address, timeout=60)
        try:
            connection.request(exchange.method, exchange.path, body=exchange.body, headers=exchange.headers)
            response = connection.getresponse()
            exchange.status, exchange.answer = response.status, response.read()
            exchange.answer_headers = response.getheaders()
        finally:
            connection.close()

    def _answer(self, handler: BaseHTTPRequestHandler, exchange: Exchange, fault: str) -> None:
        data, size = exchange.answer, len(exchange.answer)
        handler.send_response_only(exchange.status)
        for name, value in exchange.answer_headers or []:
            if name.lower() == "content-length":
                size = int(value)  # of a HEAD request
            elif name.lower() not in ("transfer-encoding", "connection"):
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        if exchange.method == "HEAD":
            return
        if fault == "flip":
            data = bytes(byte ^ 1 for byte in data)
        if fault == "drip":
            while data and not self.is_closed.wait(0.1):
                handler.wfile.write(data[:100])
                data = data[100:]
        handler.wfile.write(data[: size // 2] if fault == "cut" else data)


def is_loaded(pid: int, library: str) -> bool:
    """Whether a process has mapped a library."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return library in Path(f"/proc/{pid}/maps").read_text()
    return False


def credentials() -> dict[str, str]:
    """The variables with the credentials of the servers."""
    return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
