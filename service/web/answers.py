"""Answers in JSON and HTML, and the tags by which a client knows that nothing has changed."""

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
    """An answer in JSON."""
    response = Response(_text(body), status, content_type="application/json")
    response.headers.update(headers or {})
    return response


def next_page(cursor: str) -> str:
    """The address of the page after this one, with everything else as the request had it."""
    same = [(name, value) for name, value in request.args.items(multi=True) if name != "cursor"]
    return f"{request.path}?{urlencode([*same, ('cursor', cursor)])}"


def next_link(cursor: str | None) -> dict[str, str]:
    """The header that leads to the page after this one, if there is one (RFC 8288)."""
    return {"Link": f'<{next_page(cursor)}>; rel="next"'} if cursor is not None else {}


def as_page(template: str, status: int = 200, **values: object) -> Response:
    """An HTML page."""
    return Response(render_template(template, **values), status, content_type="text/html; charset=utf-8")


def see_other(address: str) -> Response:
    """A redirect to another page of this service."""
    return Response(status=303, headers={"Location": address})


def prefers_html() -> bool:
    """Whether the client would rather have HTML than JSON, as browsers do; ``*/*`` and silence mean JSON."""
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


def tag_of(body: BaseModel) -> str:
    """The ``ETag`` of an answer: a digest of its content, without quotes."""
    return hashlib.sha256(_text(body).encode()).hexdigest()[:32]


def tagged_json(body: BaseModel) -> Response:
    """An answer with an ``ETag`` of its content; 304 where the client has it already."""
    etag = tag_of(body)
    headers = {"ETag": f'"{etag}"', "Cache-Control": "private, no-cache"}
    return not_modified(headers) if request.if_none_match.contains_weak(etag) else as_json(body, headers=headers)


def not_modified(headers: Mapping[str, str]) -> Response:
    """The response for a client that has the content; ``headers`` are those of the whole response, without its type."""
    bare = Response(status=304, headers=dict(headers))
    del bare.headers["Content-Type"]
    return bare


def _text(body: BaseModel | dict[str, Any]) -> str:
    document = body.model_dump(mode="json") if isinstance(body, BaseModel) else body
    return json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"
