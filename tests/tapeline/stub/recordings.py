"""Recorded exchanges with a service: the files in ``recordings``, and how a request is recognised.

A file has the ``exchanges`` of one test module by key, and its ``scenes``: for each test or fixture the keys of its
exchanges in order. An exchange has a ``request`` (``method``, ``path`` with the query, and its body as ``json``,
``form`` or ``text``) and a ``response`` (``status``, ``headers``, and its body as ``json``, ``text`` or ``base64``).
``{server}`` stands for the URL of the service.
"""

from __future__ import annotations

import base64
import email
import email.policy
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent.parent / "recordings"
COMMAND: Final = "python -m tests.tapeline.record"
SERVER: Final = "{server}"
VARIABLE: Final = "RECORD_RESPONSES"
"""Set by ``record``: ``whole``, ``part`` or ``check``."""
UPLOAD_PATH: Final = re.compile(r"/uploads/[0-9a-f]{8}-[0-9a-f-]{27}")
"""How far an upload is, by its random id: whether and how often this is asked depends on the machine."""
ABSENT: Final = {
    "status": 200,
    "headers": {"Content-Type": "application/json"},
    "json": {"state": "absent", "received_bytes": 0, "total_bytes": None, "fraction": None},
}
"""The response to it, once the upload has ended."""
_MAX_TEXT_LENGTH: Final = 200
"""Longer strings in a request, such as images in base64, are represented by their digest."""

Exchange = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recording:
    """The exchanges of one test module, by key, and the keys of each scene in order."""

    exchanges: Mapping[str, Exchange]
    scenes: Mapping[str, list[str]]


def load(name: str) -> Recording:
    """Read the file ``name``; one that does not exist has no exchanges."""
    path = FOLDER / f"{name}.json"
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"exchanges": {}, "scenes": {}}
    return Recording(document["exchanges"], document["scenes"])


def load_all() -> Iterator[tuple[str, Exchange]]:
    """All exchanges, each with a name that says where it is."""
    for path in sorted(FOLDER.glob("*.json")):
        for key, exchange in load(path.stem).exchanges.items():
            yield f"{path.name}: {key}", exchange


def describe_request(method: str, path: str, content_type: str, body: bytes, server: str) -> dict[str, Any]:
    """A request as it is recorded; two requests with equal descriptions get the same responses."""
    description: dict[str, Any] = {"method": method, "path": path}
    if not body:
        return description
    if content_type.startswith("multipart/form-data"):
        return description | {"form": _form(content_type, body)}
    text = body.decode(errors="replace").replace(server, SERVER)
    try:
        document = json.loads(text, parse_constant=_reject)
    except ValueError:
        return description | {"text": _short(text)}
    return description | {"json": _short(document)}


def _reject(constant: str) -> None:
    raise ValueError(constant)


def _form(content_type: str, body: bytes) -> dict[str, str]:
    """The fields of a form. Of a table, the content counts; of an archive, whose bytes depend on the libraries that
    encode images, only its name."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    fields = dict[str, str]()
    for part in message.iter_parts():
        name = str(part.get_param("name", header="content-disposition"))
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)
        filename = part.get_filename()
        if filename is None:
            fields[name] = data.decode()
        else:
            fields[name] = f"{filename} {_digest(data)}" if name == "table" else filename
    return fields


def _short(value: Any) -> Any:
    """The value with long strings replaced by their digests."""
    if isinstance(value, str):
        return value if len(value) <= _MAX_TEXT_LENGTH else _digest(value.encode())
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value]
    return value


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()[:16]}"


def body_of(response: Mapping[str, Any], server: str) -> bytes:
    """The body of a recorded response, from the server at this URL."""
    if "base64" in response:
        return base64.b64decode(response["base64"])
    text: str = json.dumps(response["json"], ensure_ascii=False) if "json" in response else response.get("text", "")
    return text.replace(SERVER, server).encode()
