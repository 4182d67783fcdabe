"""The documentation: for programs, and for people."""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, Response, current_app, render_template, request

from service.web import openapi, problems, queries
from service.web.answers import as_json
from service.web.operations import documented
from service.web.queries import NoQuery
from service.web.services import services

blueprint: Final = Blueprint("documents", __name__)

TAG: Final = "Service"


@blueprint.get("/openapi.json")
@documented(TAG, "application/json")
def machine() -> Response:
    """Describe this API as OpenAPI 3.1."""
    queries.read_query(NoQuery)
    return as_json(openapi.document(current_app))


@blueprint.get("/docs")
@documented(TAG, "text/html")
def human() -> Response:
    """Show the documentation to a person."""
    queries.read_query(NoQuery)
    document = openapi.document(current_app)
    page = render_template(
        "docs.html",
        document=document,
        sections=_sections(document),
        problems=problems.KINDS,
        address=request.host_url.rstrip("/"),
        keys_required=services().settings.keys_required,
    )
    return Response(page, content_type="text/html; charset=utf-8")


def _sections(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The endpoints by tag, in the order of the tags."""
    sections = {tag["name"]: tag | {"operations": []} for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            sections[operation["tags"][0]]["operations"].append(operation | {"path": path, "method": method.upper()})
    return list(sections.values())
