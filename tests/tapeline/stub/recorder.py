"""A proxy to a running service that records what passes through it, for ``player``."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.tapeline.stub.recordings import SERVER, UPLOAD_PATH, describe_request, load
from tests.tapeline.stub.server import LoopbackServer

_HEADERS: Final = (
    "Content-Type",
    "Content-Disposition",
    "Location",
    "Retry-After",
    "Tapeline-Checkpoint",
    "Tapeline-Model",
    "Tapeline-Summary",
)
"""The headers that a client may use; ``Repr-Digest`` is computed anew."""
_MAX_FILE_BYTES: Final = 3000
"""Of a larger file only the beginning is recorded."""
_ULID: Final = re.compile(r"\b([a-z]{2,5})_([0-9A-HJKMNP-TV-Z]{26})\b")
_TIME: Final = re.compile(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")
_MIN_SUFFIX_LENGTH: Final = 4
_VOLATILE: Final[Mapping[str, Any]] = {
    "seconds": 0.5,
    "cpu_seconds": 0.5,
    "estimated_seconds": 1.5,
    "memory_bytes": 100_000_000,
    "measured_memory_bytes": 100_000_000,
    "peak_memory_bytes": 100_000_000,
    "queued_s": 0.1,
    "running_s": 1.0,
    "steps_per_second": 100.0,
    "eta_s": 1.0,
    "elapsed_s": 1.0,
    "uptime_s": 1.0,
    "low_s": 0.1,
    "high_s": 2.0,
    "cpu": "a processor",
    "host": "host",
    "pid": 4321,
    "hostname": "host",
    "platform": "Linux",
    "worker": "worker",
    "request_id": "a-request",
}
"""Fields that differ in each run, and the value that is recorded, unless the field is null."""


@dataclass
class _Passed:
    """An exchange that has passed, or is passing."""

    request: dict[str, Any]
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)


class Recorder(LoopbackServer):
    """Forwards requests to the service at ``target``, and records them under the current scene."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target).netloc
        self._current: list[tuple[str, str]] = []
        self._scenes: dict[tuple[str, str], list[_Passed]] = {}
        self._lock = threading.Lock()
        super().__init__(self._forward)

    @contextmanager
    def scene(self, file: str, name: str) -> Iterator[str]:
        """Record the requests within this block as the scene ``name`` of a file."""
        self._scenes[file, name] = []
        self._current.append((file, name))
        try:
            yield self.url
        finally:
            self._current.remove((file, name))

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        content_type = handler.headers.get("Content-Type", "")
        passed = _Passed(describe_request(handler.command, handler.path, content_type, body, self.url))
        with self._lock:
            if self._current and not UPLOAD_PATH.fullmatch(handler.path):
                self._scenes[self._current[-1]].append(passed)
        connection = http.client.HTTPConnection(self._target, timeout=700)
        headers = {name: value for name, value in handler.headers.items() if name not in ("Host", "Connection")}
        try:
            connection.request(handler.command, handler.path, body or None, headers)
            response = connection.getresponse()
            passed.status = response.status
            passed.headers = {name: text for name in _HEADERS if (text := response.getheader(name)) is not None}
            if passed.headers.get("Content-Type", "").startswith("text/event-stream"):
                self._pass_stream(handler, response, passed)
                return
            passed.body += response.read()
            handler.send_response(response.status)
            skipped = ("transfer-encoding", "connection", "content-length")
            for name, value in response.getheaders():
                if name.lower() not in skipped:
                    handler.send_header(name, value)
            if response.status not in (204, 304):
                handler.send_header("Content-Length", str(len(passed.body)))
            handler.end_headers()
            handler.wfile.write(passed.body)
        finally:
            connection.close()

    @staticmethod
    def _pass_stream(handler: BaseHTTPRequestHandler, response: http.client.HTTPResponse, passed: _Passed) -> None:
        handler.send_response(response.status)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        with suppress(OSError):
            while chunk := response.read1(65536):
                handler.wfile.write(chunk)
                handler.wfile.flush()
                passed.body += chunk

    def save(self, folder: Path, *, is_whole: bool) -> None:
        """Write one file for each test module; ids, times and durations are replaced by reproducible ones.

        Scenes that were not recorded now are kept, unless this is the ``whole`` recording.
        """
        ids = dict[str, str]()
        for (file, scene), passed in self._scenes.items():
            _number_ids(ids, f"{file} {scene}", passed)
        documents = dict[str, dict[str, Any]]()
        for (file, scene), passed in self._scenes.items():
            document = documents.setdefault(file, {"exchanges": {}, "scenes": {}})
            times = _number_times(passed)
            keys = document["scenes"][scene] = []
            for item in _without_polling(passed):
                exchange = _Replacements(ids, times, (self.url, f"http://{self._target}")).exchange(item)
                text = json.dumps(exchange, sort_keys=True)
                digest = hashlib.sha256(text.encode()).hexdigest()[:8]
                key = f"{exchange['request']['method']} {exchange['request']['path']} {digest}"
                document["exchanges"][key] = exchange
                keys.append(key)
        folder.mkdir(exist_ok=True)
        if is_whole:
            for path in folder.glob("*.json"):
                path.unlink()
        for file, document in documents.items():
            earlier = load(file)
            exchanges = {**earlier.exchanges, **document["exchanges"]}
            scenes = {name: keys for name, keys in sorted((earlier.scenes | document["scenes"]).items()) if keys}
            used = {key: exchanges[key] for keys in scenes.values() for key in keys}
            if used:
                text = _layout({"exchanges": used, "scenes": scenes})
                (folder / f"{file}.json").write_text(f"{text}\n", encoding="utf-8")


def _layout(document: dict[str, dict[str, Any]]) -> str:
    """JSON with one line for each exchange and each scene."""
    parts = []
    for name, items in document.items():
        lines = ",\n".join(f"  {json.dumps({key: item}, ensure_ascii=False)[1:-1]}" for key, item in items.items())
        parts.append(f" {json.dumps(name)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(parts) + "\n}"


def _without_polling(passed: list[_Passed]) -> list[_Passed]:
    """Of equal GETs in succession, the last one only: how often a state is polled depends on the machine."""
    result: list[_Passed] = []
    for item in passed:
        is_stream = item.headers.get("Content-Type", "").startswith("text/event-stream")
        if result and item.request["method"] == "GET" and result[-1].request == item.request and not is_stream:
            result.pop()
        result.append(item)
    return result


def _number_ids(ids: dict[str, str], scene: str, passed: list[_Passed]) -> None:
    """Add an id for each new one of a scene: ids sort as the real ones do, and depend on no other scene."""
    texts = [item.body.decode(errors="replace") for item in passed if _is_text(item)]
    new = {found[0] for text in texts for found in _ULID.finditer(text)} - ids.keys()
    for number, real in enumerate(sorted(new, key=lambda text: text.partition("_")[2])):
        prefix = real.partition("_")[0]
        digest = hashlib.sha256(f"{scene} {number}".encode()).hexdigest()[:18].upper()
        ids[real] = f"{prefix}_01R{number:05d}{digest}"


def _number_times(passed: list[_Passed]) -> dict[str, str]:
    """The recorded times of a scene by the real ones: one second after another."""
    texts = [item.body.decode(errors="replace") for item in passed if _is_text(item)]
    times = sorted({found[0] for text in texts for found in _TIME.finditer(text)})
    return {
        real: f"2026-01-01T{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}.000Z"
        for number, real in enumerate(times)
    }


def _is_text(item: _Passed) -> bool:
    media = item.headers.get("Content-Type", "")
    return "json" in media or media.startswith("text/")


@dataclass(frozen=True)
class _Replacements:
    ids: Mapping[str, str]
    times: Mapping[str, str]
    servers: tuple[str, ...]

    def exchange(self, item: _Passed) -> dict[str, Any]:
        request = json.loads(self._text(json.dumps(item.request)))
        request["path"] = self._path(request["path"])
        response: dict[str, Any] = {"status": item.status}
        headers = {name: self._text(value) for name, value in item.headers.items()}
        response["headers"] = headers
        media = headers.get("Content-Type", "")
        if "json" in media:
            response["json"] = self._document(json.loads(self._text(item.body.decode())))
        elif media.startswith("text/event-stream"):
            response["text"] = self._stream(self._text(item.body.decode()))
        elif media.startswith("text/") and media.endswith("charset=utf-8"):
            response["text"] = self._text(item.body.decode())
        elif item.body:
            data = bytes(item.body[:_MAX_FILE_BYTES])
            digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
            headers["Repr-Digest"] = f"sha-256=:{digest}:"
            response["base64"] = base64.b64encode(data).decode()
        return {"request": request, "response": response}

    def _text(self, text: str) -> str:
        for server in self.servers:
            text = text.replace(server, SERVER)
        text = _ULID.sub(lambda found: self.ids.get(found[0], found[0]), text)
        return _TIME.sub(lambda found: self.times.get(found[0], found[0]), text)

    def _path(self, path: str) -> str:
        """The path with ends of ids replaced in its query."""
        bare, mark, query = path.partition("?")
        if not mark:
            return path
        fields = [(name, self._end_of_id(value)) for name, value in parse_qsl(query, keep_blank_values=True)]
        changed = fields != parse_qsl(query, keep_blank_values=True)
        return f"{bare}?{urlencode(fields)}" if changed else path

    def _end_of_id(self, value: str) -> str:
        if _MIN_SUFFIX_LENGTH <= len(value) <= 26:
            for real, recorded in self.ids.items():
                is_name = value.islower() and value.isalpha()  # an id may happen to end with letters only
                if real.lower().endswith(value.lower()) and not is_name:
                    end = recorded[-len(value) :]
                    return end.lower() if value.islower() else end
        return value

    def _document(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: _VOLATILE[name]
                if name in _VOLATILE and isinstance(item, int | float | str) and not isinstance(item, bool)
                else self._document(item)
                for name, item in value.items()
            }
        if isinstance(value, list):
            return [self._document(item) for item in value]
        return value

    def _stream(self, text: str) -> str:
        """The events of a stream, without those whose number depends on the machine."""
        events = []
        for block in text.replace("\r\n", "\n").split("\n\n"):
            lines = block.splitlines()
            if not lines or "event: progress" in lines or all(line.startswith(":") for line in lines):
                continue
            changed = [
                f"data: {json.dumps(self._document(json.loads(line[6:])), ensure_ascii=False)}"
                if line.startswith("data: ")
                else line
                for line in lines
            ]
            events.append("\n".join(changed) + "\n\n")
        return "".join(events)
