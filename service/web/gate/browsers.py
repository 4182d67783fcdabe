"""Redirects browsers from the API's addresses to pages, and shows them problems as pages.

Pages live under ``/ui/``; an endpoint names its page in ``endpoint(page=...)``.
"""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote

from flask import Flask, Response, render_template, request

from service.web.http import problem_kinds
from service.web.http.endpoint import current_operation
from service.web.http.queries import NoQuery
from service.web.http.requests import read_query
from service.web.http.responses import prefers_html, see_other

_PROBLEM: Final = "application/problem+json"


def register(app: Flask) -> None:
    """Answer browsers with pages. Register this after the access checks."""

    @app.before_request
    def redirect_browser() -> Response | None:
        operation = current_operation()
        # A format in the URL takes precedence over the browser's Accept header.
        if operation is None or operation.page is None or "format" in request.args or not prefers_html():
            return None
        if request.method == "OPTIONS":
            return None
        values = {name: quote(str(value), safe="") for name, value in (request.view_args or {}).items()}
        address, query = operation.page.format(**values), request.query_string.decode("ascii", "replace")
        if "#" in address:  # a part of a page takes no parameters: those of the JSON are checked, and dropped
            read_query(operation.query or NoQuery)
            return see_other(address)
        return see_other(address + (f"?{query}" if query else ""))

    @app.after_request
    def show_problem(response: Response) -> Response:
        is_problem, operation = response.mimetype == _PROBLEM, current_operation()
        if is_problem or (operation is not None and operation.page is not None):
            response.vary.add("Accept")
        if is_problem and prefers_html():
            response.set_data(_problem_page(json.loads(response.get_data())))
            response.content_type = "text/html; charset=utf-8"
        return response


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
        link=kind.link,
        more={name: value for name, value in document.items() if name not in shown and value not in (None, [])},
        passes=document["status"] in (429, 503) and request.method in ("GET", "HEAD"),
        again="/" + request.path.lstrip("/"),
    )
