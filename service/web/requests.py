"""Validation of a request's URL parameters, body and headers."""

from __future__ import annotations

import hashlib
import re
import threading
from contextlib import nullcontext
from typing import Any, Final, TypeVar

from flask import request
from pydantic import ValidationError

from service.jobs import submissions
from service.spec import validation
from service.web.middleware.problems import Problem
from service.web.schemas.queries import Query, StreamQuery
from service.web.server import arrivals

MAX_BODY_BYTES: Final = 1024 * 1024
MAX_WAIT_S: Final = 60

_LARGE_BODY_BYTES: Final = 64 * 1024
"""Far more than a spec has."""
_PARSING: Final = threading.Lock()
"""Held while a large body is parsed: one at a time in this process."""
_KEY: Final = re.compile(r"[\x20-\x7e]{1,255}")
_WAIT: Final = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,6})\"?\s*(?:$|[,;])", re.IGNORECASE)

Q = TypeVar("Q", bound=Query)


def read_query(model: type[Q]) -> Q:
    """The parameters of the URL.

    Raises:
        Problem: some are not valid; ``errors`` names each.
    """
    given: dict[str, Any] = {}
    for name, values in request.args.lists():
        field = model.model_fields.get(name)
        listed = field is not None and str(field.annotation).startswith("list")
        given[name] = values if listed else values[-1]
    try:
        return model.model_validate(given)
    except ValidationError as error:
        known = ", ".join(model.model_fields) or "none"
        faults = []
        for item in error.errors():
            name = str(item["loc"][0]) if item["loc"] else ""
            unknown = item["type"] == "extra_forbidden"
            message = f"unknown parameter; allowed: {known}" if unknown else item["msg"].removeprefix("Input ")
            code = "unknown_parameter" if unknown else "invalid_value"
            faults.append({"parameter": name[:100], "detail": message, "code": code})
            if suggestion := item.get("ctx", {}).get("suggestion"):
                faults[-1]["suggestion"] = suggestion
        raise _bad_parameters(faults) from error


def read_json(*, also: str | None = None, max_bytes: int = MAX_BODY_BYTES) -> Any:
    """The body, which must say that it is JSON.

    Args:
        also: another media type that will do.
        max_bytes: smaller where no key is needed.

    Raises:
        Problem: it says that it is something else, or it is too large.
        MalformedJson: it is something else.
    """
    if request.mimetype not in ("application/json", also):
        shown = repr(request.mimetype[:100]) if request.mimetype else "missing"
        raise Problem("unsupported_media_type", f"the content type must be application/json; it is {shown}")
    # Where a body comes in chunks, Werkzeug cuts it off at its limit without a word: hence one byte more.
    request.max_content_length = max_bytes + 1
    body = request.get_data(cache=False)
    arrivals.end()
    if len(body) > max_bytes:
        raise Problem("body_too_large", f"the body is larger than {max_bytes // 1024:,} KiB")
    # Many at once would keep the interpreter from everybody else for as long as all of them take.
    with _PARSING if len(body) > _LARGE_BODY_BYTES else nullcontext():
        return validation.parse_json(body)


def idempotency_key(body: Any) -> submissions.IdempotencyKey | None:
    """The client's name for this request, with what the request says.

    Raises:
        Problem: the key is too long, or not plain text.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        detail = "must have 1 to 255 printable ASCII characters"
        raise _bad_parameters([{"parameter": "Idempotency-Key", "detail": detail, "code": "invalid_value"}])
    said = "\n".join([request.method, request.path, validation.canonical(body)])
    return submissions.IdempotencyKey(key=key, fingerprint=hashlib.sha256(said.encode()).hexdigest())


def last_event_id(query: StreamQuery) -> int | None:
    """The number of the last event that a client has, ``None`` if it has none.

    Raises:
        Problem: the header does not hold a number.
    """
    text = request.headers.get("Last-Event-ID", "").strip()
    if not text:
        return query.after
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        detail = "must be the id of an event of this job, a number"
        raise _bad_parameters([{"parameter": "Last-Event-ID", "detail": detail, "code": "invalid_value"}])
    return int(text)


def preferred_wait_s() -> int:
    """How long the client would have the answer held (``Prefer: wait=30``); 0 where it says nothing."""
    found = _WAIT.search(request.headers.get("Prefer", ""))
    return min(int(found[1]), MAX_WAIT_S) if found else 0


def _bad_parameters(faults: list[dict[str, str]]) -> Problem:
    detail = "; ".join(f"{fault['parameter']}: {fault['detail']}" for fault in faults)
    return Problem("invalid_parameter", detail[:1000], errors=faults)
