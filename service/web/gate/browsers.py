"""Content negotiation: at the same URL, programs get JSON and browsers get a page.

An endpoint names its page in ``endpoint(page=...)``. Other JSON responses and all problems are rendered as plain pages.
"""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote

from flask import Flask, Response, current_app, render_template, request

from service.web.gate.access_checks import SAFE
from service.web.http import problem_kinds
from service.web.http.endpoint import Operation, operation_of, query_for
from service.web.http.responses import prefers_html, see_other

_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"
_HTML: Final = "text/html"


def register(app: Flask) -> None:
    """Answer browsers with pages. Register this after the access checks."""

    @app.before_request
    def show_page() -> Response | None:
        operation = _operation()
        if operation is None or operation.page is None or not _wants_page():
            return None
        if callable(operation.page):
            return operation.page(**(request.view_args or {}), **query_for(operation.page, operation))
        values = {name: quote(str(value), safe="") for name, value in (request.view_args or {}).items()}
        query = request.query_string.decode("ascii", "replace")
        return see_other(operation.page.format(**values) + (f"?{query}" if query else ""))

    @app.after_request
    def translate(response: Response) -> Response:
        operation = _operation()
        has_page = operation is not None and (operation.page is not None or operation.has_page)
        is_negotiated = response.mimetype == _JSON or has_page
        if response.mimetype == _PROBLEM or (request.method in SAFE and is_negotiated):
            response.vary.add("Accept")
        if response.mimetype == _PROBLEM and prefers_html():
            _replace_content(response, _problem_page(json.loads(response.get_data())))
        elif _wants_page() and operation is not None and response.mimetype == _JSON and operation.has_page:
            _replace_content(response, _plain_page(operation, json.loads(response.get_data())))
        return response


def _operation() -> Operation | None:
    return operation_of(current_app.view_functions.get(request.endpoint or ""))


def _wants_page() -> bool:
    # A format in the URL takes precedence over the browser's Accept header.
    return request.method in ("GET", "HEAD") and "format" not in request.args and prefers_html()


def _replace_content(response: Response, page: str) -> None:
    response.set_data(page)
    response.content_type = f"{_HTML}; charset=utf-8"
    del response.headers["ETag"]


def _problem_page(document: dict[str, Any]) -> str:
    if document["code"] == "key_required":
        return render_template("admin/sign_in.html")
    shown = {"type", "title", "status", "detail", "instance", "code", "request_id", "errors"}
    if document.get("error_count") == len(document.get("errors") or ()):
        shown.add("error_count")
    kind = problem_kinds.KINDS[document["code"]]
    return render_template(
        "common/problem.html",
        problem=document,
        remedy=kind.for_people or kind.meaning,
        way_on=kind.way_on,
        more={name: value for name, value in document.items() if name not in shown and value not in (None, [])},
        passes=document["status"] in (429, 503) and request.method in ("GET", "HEAD"),
        again="/" + request.path.lstrip("/"),
    )


def _plain_page(operation: Operation, document: Any) -> str:
    view = current_app.view_functions[request.endpoint or ""]
    summary = (view.__doc__ or "").strip().partition("\n")[0]
    args = request.view_args or {}
    return render_template(
        "docs/document.html", document=document, summary=summary, tag=operation.tag, job_id=args.get("job_id")
    )
