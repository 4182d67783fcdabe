"""A server that plays recorded responses."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from tests.tapeline.stub.recordings import (
    ABSENT,
    COMMAND,
    UPLOAD_PATH,
    Exchange,
    Recording,
    body_of,
    describe_request,
    load,
)
from tests.tapeline.stub.server import LoopbackServer

_NOT_RECORDED: Final = 501
"""A status that the client does not retry."""
_MAX_POLLS: Final = 20


@dataclass
class Scene:
    """The exchanges of one test or fixture.

    The responses to one request are played in their recorded order, and the last one of a GET again and again. Those
    to a GET that were recorded after a write are not played before it.
    """

    name: str
    exchanges: list[Exchange]
    played: set[int] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)
    polled: int = 0
    """How often a state was requested again whose successor follows a write that has not been requested."""

    def next_response(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The next response to a request; ``None`` if none is recorded."""
        matching = [index for index, item in enumerate(self.exchanges) if item["request"] == request]
        unplayed = [index for index in matching if index not in self.played]
        if request["method"] == "GET":
            first_write = next((index for index in self._writes() if index not in self.played), len(self.exchanges))
            reachable = [index for index in matching if index < first_write] or matching[:1]
            if unplayed and unplayed[0] not in reachable:
                self.polled += 1
            if self.polled > _MAX_POLLS:
                write = self.exchanges[first_write]["request"]
                self.unknown.append(f"polled in vain: {request}; its next state follows {write}")
                return None
            unplayed = [index for index in unplayed if index in reachable] or reachable[-1:]
        if not unplayed:
            self.unknown.append(json.dumps(request, ensure_ascii=False))
            return None
        self.played.add(unplayed[0])
        response: dict[str, Any] = self.exchanges[unplayed[0]]["response"]
        return response

    def check(self) -> None:
        """Fail unless every request was recorded, and every recorded write was requested."""
        remedy = f"if the request is intended, record it with: {COMMAND}"
        assert not self.unknown, f"not recorded in {self.name} ({remedy}):\n" + "\n".join(self.unknown)
        missing = [self.exchanges[index]["request"] for index in self._writes() if index not in self.played]
        assert not missing, f"recorded in {self.name}, but not requested: {missing} ({remedy})"

    def _writes(self) -> Iterator[int]:
        return (index for index, item in enumerate(self.exchanges) if item["request"]["method"] != "GET")


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is interrupted closes its connection; what else goes wrong is an unknown request."""


class Player(LoopbackServer):
    """A real HTTP server that plays the responses of the current scene."""

    def __init__(self) -> None:
        self._scenes: list[Scene] = []
        self._recordings: dict[str, Recording] = defaultdict()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        super().__init__(self._respond, _QuietServer)

    def close(self) -> None:
        """End the server and its open streams."""
        self._closing.set()
        super().close()

    @contextmanager
    def scene(self, file: str, name: str) -> Iterator[str]:
        """Play the scene ``name`` of a file within this block, and check at its end that it was played whole."""
        if file not in self._recordings:
            self._recordings[file] = load(file)
        recording = self._recordings[file]
        keys = recording.scenes.get(name, [])
        scene = Scene(f"{file}.json, scene {name}", [recording.exchanges[key] for key in keys])
        self._scenes.append(scene)
        try:
            yield self.url
        finally:
            self._scenes.remove(scene)
        scene.check()

    def _respond(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        content_type = handler.headers.get("Content-Type", "")
        request = describe_request(handler.command, handler.path, content_type, body, self.url)
        with self._lock:
            if UPLOAD_PATH.fullmatch(handler.path):
                response: Mapping[str, Any] | None = ABSENT
            else:
                response = self._scenes[-1].next_response(request) if self._scenes else None
        if response is None:
            detail = f"there is no recording of {request['method']} {request['path']}; record it with: {COMMAND}"
            problem = {"code": "not_recorded", "title": "Not recorded", "status": _NOT_RECORDED, "detail": detail}
            response = {"status": _NOT_RECORDED, "headers": {}, "json": problem}
        data = body_of(response, self.url)
        is_stream = response["headers"].get("Content-Type", "").startswith("text/event-stream")
        handler.send_response(response["status"])
        for name, value in response["headers"].items():
            handler.send_header(name, value.replace("{server}", self.url))
        if is_stream:
            handler.send_header("Connection", "close")
        elif response["status"] != 204:
            handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)
        handler.wfile.flush()
        if is_stream:
            handler.close_connection = True
            if b"event: end\n" not in data:  # its reader was interrupted: keep it waiting
                self._closing.wait(60)
