"""Validation of a request's URL parameters, body and headers."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, TypeVar

from flask import request
from pydantic import ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from service.jobs import submissions
from service.spec import strict_json
from service.web.http import request_limits, slots
from service.web.http.problems import Problem, invalid_parameter, invalid_parameters
from service.web.http.queries import Query, StreamQuery

MAX_BODY_BYTES: Final = 1024 * 1024
LARGE_BODY_BYTES: Final = 64 * 1024
"""Bodies above this size need a slot to be parsed; specs are far smaller."""
MAX_UPLOAD_BYTES: Final = 256 * 2**20
MAX_RECEIVE_S: Final = 900.0
"""Maximum time for receiving the whole body of an upload."""
PIECE_S: Final = 10.0
"""Maximum time for 64 KiB: a client that sends less than 6.5 KiB/s loses its slot."""
_PIECE_BYTES: Final = 64 * 1024
MAX_WAIT_S: Final = 60

_KEY: Final = re.compile(r"[\x20-\x7e]{1,255}")
_UPLOAD_ID: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")
_WAIT: Final = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,6})\"?\s*(?:$|[,;])", re.IGNORECASE)

Q = TypeVar("Q", bound=Query)


def read_query(model: type[Q]) -> Q:
    """Validate the URL parameters.

    Raises:
        Problem: some are not valid; ``errors`` names each.
    """
    parameters: dict[str, Any] = {}
    for name, values in request.args.lists():
        field = model.model_fields.get(name)
        is_list = field is not None and str(field.annotation).startswith("list")
        parameters[name] = values if is_list else values[-1]
    try:
        return model.model_validate(parameters)
    except ValidationError as error:
        allowed = ", ".join(model.model_fields) or "none"
        faults = []
        for item in error.errors():
            name = str(item["loc"][0]) if item["loc"] else ""
            is_unknown = item["type"] == "extra_forbidden"
            message = f"unknown parameter; allowed: {allowed}" if is_unknown else item["msg"].removeprefix("Input ")
            if item["type"] == "missing" or item["type"] == "too_short":  # lists with a minimum are lists of jobs
                is_list = str(model.model_fields[name].annotation).startswith("list")
                message = "name at least one job" if is_list else message
            code = "unknown_parameter" if is_unknown else "invalid_value"
            faults.append({"parameter": name[:100], "detail": message, "code": code})
            if suggestion := item.get("ctx", {}).get("suggestion"):
                faults[-1]["suggestion"] = suggestion
        raise invalid_parameters(faults) from error


def read_json(*, also: str | None = None, max_bytes: int = MAX_BODY_BYTES) -> Any:
    """Read and parse a JSON body.

    Args:
        also: another accepted media type.
        max_bytes: the maximum size; smaller for endpoints that need no key.

    Raises:
        Problem: the content type is not accepted, or the body is too large.
        MalformedJson: the body is not JSON.
        Busy: too many large bodies wait to be parsed.
    """
    if request.mimetype not in ("application/json", also):
        content_type = repr(request.mimetype[:100]) if request.mimetype else "missing"
        raise Problem("unsupported_media_type", f"the content type must be application/json; it is {content_type}")
    # Werkzeug silently truncates chunked bodies at the limit: allow one byte more, to detect that.
    request.max_content_length = max_bytes + 1
    body = request.get_data(cache=False)
    request_limits.end()
    if len(body) > max_bytes:
        raise Problem("body_too_large", f"the body is larger than {max_bytes // 1024:,} KiB")
    with slots.hold(slots.PARSING) if len(body) > LARGE_BODY_BYTES else nullcontext():
        return strict_json.parse_json(body)


class UploadedBody:
    """The body of an upload, with a byte count, a maximum size and a minimum rate."""

    def __init__(self, max_bytes: int, on_received: Callable[[int], None] = lambda size: None) -> None:
        request.max_content_length = max_bytes
        self._deadline = time.monotonic() + MAX_RECEIVE_S
        self._on_received = on_received
        self.received = 0

    def read(self, size: int) -> bytes:
        """The next bytes; 64 KiB should be requested at a time."""
        started = time.monotonic()
        request_limits.admit(PIECE_S)
        data = request.stream.read(size)
        self.received += len(data)
        self._on_received(len(data))
        if len(data) < size and time.monotonic() - started >= PIECE_S:  # the read timed out
            raise Problem("too_slow", f"64 KiB did not arrive within {PIECE_S:.0f} seconds")
        if time.monotonic() > self._deadline:
            raise Problem("too_slow", f"the body did not arrive within {MAX_RECEIVE_S:.0f} seconds")
        return data


def receive_file(path: Path, on_received: Callable[[int], None]) -> None:
    """Write the body, which is a file, to a new file.

    Args:
        on_received: called with the number of bytes of each piece.

    Raises:
        Problem: it is too large or too slow.
        OSError: the file cannot be written.
    """
    body = UploadedBody(MAX_UPLOAD_BYTES, on_received)
    try:
        with path.open("xb") as file:
            while piece := body.read(_PIECE_BYTES):
                file.write(piece)
    except RequestEntityTooLarge as error:
        detail = f"a file has at most {MAX_UPLOAD_BYTES:,} bytes; send a larger one gzipped"
        raise Problem("body_too_large", detail) from error
    finally:
        request_limits.end()


def idempotency_key(body: Any) -> submissions.IdempotencyKey | None:
    """The idempotency key of this request, with a fingerprint of its content.

    Raises:
        Problem: the key is too long, or not printable ASCII.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise invalid_parameter("Idempotency-Key", "must have 1 to 255 printable ASCII characters")
    content = "\n".join([request.method, request.path, strict_json.canonical(body)])
    return submissions.IdempotencyKey(key=key, fingerprint=hashlib.sha256(content.encode()).hexdigest())


def upload_id() -> str | None:
    """The id that the client chose for this upload, to request its progress.

    Raises:
        Problem: it is not a valid id.
    """
    value = request.headers.get("Upload-Id")
    if value is not None and not _UPLOAD_ID.fullmatch(value):
        raise invalid_parameter("Upload-Id", "must have 8 to 64 letters, digits, dashes and underscores")
    return value


def last_event_id(query: StreamQuery) -> int | None:
    """The number of the last event that the client has received, or ``None``.

    Raises:
        Problem: the header is not a number.
    """
    text = request.headers.get("Last-Event-ID", "").strip()
    if not text:
        return query.after
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise invalid_parameter("Last-Event-ID", "must be the id of an event of this job, a number")
    return int(text)


def preferred_wait_s() -> int:
    """How long the client asks to delay the response (``Prefer: wait=30``), at most ``MAX_WAIT_S``; default 0."""
    preference = _WAIT.search(request.headers.get("Prefer", ""))
    return min(int(preference[1]), MAX_WAIT_S) if preference else 0
