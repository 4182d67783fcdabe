"""Responses in JSON and HTML, with entity tags (ETags) for conditional requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from flask import Response, render_template, request
from pydantic import BaseModel


def as_json(
    body: BaseModel | dict[str, Any], status: int = 200, *, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON response."""
    response = Response(_text(body), status, content_type="application/json")
    response.headers.update(headers or {})
    return response


def next_address(cursor: str | None) -> str | None:
    """The URL of the next page, if there is one: that of the current request, with another cursor."""
    if cursor is None:
        return None
    other_params = [(name, value) for name, value in request.args.items(multi=True) if name != "cursor"]
    return f"{request.path}?{urlencode([*other_params, ('cursor', cursor)])}"


def own_address() -> str:
    """The address at which the client reaches this service, for commands to copy."""
    return request.host_url.rstrip("/")


def next_link(cursor: str | None) -> dict[str, str]:
    """The ``Link`` header to the next page (RFC 8288), if there is one."""
    address = next_address(cursor)
    return {"Link": f'<{address}>; rel="next"'} if address is not None else {}


def as_page(template: str, status: int = 200, **values: object) -> Response:
    """An HTML page."""
    return Response(render_template(template, **values), status, content_type="text/html; charset=utf-8")


def see_other(address: str) -> Response:
    """A redirect to another page of this service."""
    return Response(status=303, headers={"Location": address})


def prefers_html() -> bool:
    """Whether the client prefers HTML to JSON, as browsers do; ``*/*`` or no header means JSON."""
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


def etag_of(body: BaseModel) -> str:
    """The ``ETag`` of a response: a digest of its content, without quotes."""
    return hashlib.sha256(_text(body).encode()).hexdigest()[:32]


def tagged_json(body: BaseModel) -> Response:
    """A JSON response with an ``ETag``; 304 if the client has the content already."""
    etag = etag_of(body)
    headers = {"ETag": f'"{etag}"', "Cache-Control": "private, no-cache"}
    return not_modified(headers) if request.if_none_match.contains_weak(etag) else as_json(body, headers=headers)


def not_modified(headers: Mapping[str, str]) -> Response:
    """A 304 response with the ``headers`` of the full response, except the content type."""
    bare = Response(status=304, headers=dict(headers))
    del bare.headers["Content-Type"]
    return bare


def _text(body: BaseModel | dict[str, Any]) -> str:
    document = body.model_dump(mode="json") if isinstance(body, BaseModel) else body
    return json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"
