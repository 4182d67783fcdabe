"""The trace of a request: that of its ``traceparent`` header, or its own.

Pages and clients poll, and a span for each poll would bury the others. A request has a span if it changes something,
exports a model, or carries a ``traceparent``.
"""

from __future__ import annotations

import re
from typing import Final

from flask import g, request

from service.runtime import tracing

_POLLS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PARAMETER: Final = re.compile(r"<(?:\w+:)?(\w+)>")


def begin() -> None:
    """Set ``g.traceparent``, and begin the span of the request if it has one."""
    g.traceparent = sent = tracing.read_traceparent(request.headers.get("traceparent"))
    rule = request.url_rule.rule if request.url_rule is not None else ""
    if not tracing.is_exporting() or not (sent or request.method not in _POLLS or "/export/" in rule):
        return
    route = _PARAMETER.sub(r"{\1}", rule)
    attributes = {"http.request.method": request.method, "http.route": route, "tapeline.request_id": g.request_id}
    if (span := tracing.begin_request(f"{request.method} {route}".strip(), sent, attributes)) is not None:
        g.server_span, g.traceparent = span, span.context.traceparent


def describe(status: int, *, job: str | None) -> None:
    """Add the response to the span."""
    if (span := g.get("server_span")) is not None:
        span.attributes["http.response.status_code"] = status
        if job is not None:
            span.attributes["tapeline.job.id"] = job
        if status >= 500:
            span.error = str(status)


def end() -> None:
    """End the span."""
    if (span := g.pop("server_span", None)) is not None:
        tracing.end_request(span)
