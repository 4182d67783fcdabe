"""A server that answers with what a test prescribes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Handler = Callable[[BaseHTTPRequestHandler, bytes], None]

JOB = "job_" + 26 * "0"


class LoopbackServer:
    """A real HTTP server on this machine that hands every request and its body to ``respond``."""

    def __init__(self, respond: Handler, server_class: type[ThreadingHTTPServer] = ThreadingHTTPServer) -> None:
        class RequestHandler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                respond(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any  # noqa: N815 - the base class looks for these

            def log_message(self, *_: Any) -> None:
                pass

        self._server = server_class(("127.0.0.1", 0), RequestHandler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class StubServer(LoopbackServer):
    """Answers each request with the next of the test's handlers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.responses: list[Handler] = []
        super().__init__(self._respond)

    def _respond(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        self.requests.append((handler.command, handler.path, dict(handler.headers), body))
        self.responses.pop(0)(handler, body)


def response(document: Any, status: int = 200, **headers: str) -> Handler:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()

    def send(request: BaseHTTPRequestHandler, body: bytes) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    return send


def hang_up(request: BaseHTTPRequestHandler, body: bytes) -> None:
    request.close_connection = True
    request.connection.shutdown(socket.SHUT_RDWR)


def stream(*texts: str) -> Handler:
    """Send the texts, then close the connection."""

    def send(request: BaseHTTPRequestHandler, body: bytes) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.send_header("Connection", "close")
        request.end_headers()
        for text in texts:
            request.wfile.write(text.encode())
            request.wfile.flush()
        request.close_connection = True

    return send


def event(kind: str, seq: int | None = None, /, **data: Any) -> str:
    number = "" if seq is None else f"id: {seq}\n"
    return f"{number}event: {kind}\ndata: {json.dumps(data)}\n\n"


SNAPSHOT = event("snapshot", status="running")
