"""Servers in the test process. The apps of all tests of a process have one address, one after the other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final
from wsgiref.types import StartResponse, WSGIEnvironment

from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from service.web.core.core import provided
from service.web.streaming.poller import Poller
from tests.service.web.apps import shut_down_app

_END_TIMEOUT_S: Final = 60.0


class AppServer:
    """Serves one app at a time. With one address for all, the browser loads and compiles the page's scripts once."""

    def __init__(self) -> None:
        self._app: Flask | None = None
        self._unfinished = 0
        """Number of requests in progress, streams included."""
        self._idle = threading.Condition()
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        request_in_progress = self._request_in_progress

        class RequestHandler(WSGIRequestHandler):
            def run_wsgi(self) -> None:
                # Around the whole request: the server does not close the response if the client resets the connection.
                with request_in_progress():
                    super().run_wsgi()

        self._server = make_server("127.0.0.1", 0, self._respond, threaded=True, request_handler=RequestHandler)
        self._server.daemon_threads = True  # idle connections of the browser
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @contextmanager
    def _request_in_progress(self) -> Iterator[None]:
        with self._idle:
            self._unfinished += 1
        try:
            yield
        finally:
            with self._idle:
                self._unfinished -= 1
                self._idle.notify_all()

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        app = self._app
        if app is None:
            start_response("503 Service Unavailable", [])
            return []
        return app(environ, start_response)

    @contextmanager
    def serve(self, app: Flask) -> Iterator[str]:
        """Serve an app and yield its URL. At the end, wait for requests in progress, then close the app."""
        assert self._app is None
        self._app = app
        try:
            yield self.url
        finally:
            provided(Poller, app).closing = True
            with self._idle:
                self._app = None
                ended = self._idle.wait_for(lambda: self._unfinished == 0, _END_TIMEOUT_S)
            shut_down_app(app)
            assert ended, "a request does not end"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serve(app: Flask) -> Iterator[str]:
    """Serve an app at an address of its own."""
    server = AppServer()
    with server.serve(app) as url:
        yield url
    server.close()
