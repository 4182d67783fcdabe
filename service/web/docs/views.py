"""The API documentation: OpenAPI and pages."""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, Response, current_app, g

from service.web.core.core import core
from service.web.docs import learn, openapi
from service.web.docs.terms import TERMS
from service.web.gate.access_checks import browser
from service.web.http import problem_kinds
from service.web.http.endpoint import PUBLIC, endpoint
from service.web.http.path_parameters import PathParameter
from service.web.http.problems import Problem
from service.web.http.responses import as_json, as_page, own_address

blueprint: Final = Blueprint("documents", __name__)

TAG: Final = "Service"
SECTION: Final = PathParameter("section", "A section of the documentation: a tag in lower case, or `schemas`.", "jobs")
_SCHEMAS: Final = "schemas"
_DESTRUCTIVE: Final = ("/cancel", "/revoke")
"""Suffixes of paths whose ``POST`` cannot be undone."""


@blueprint.get("/openapi.json")
@endpoint(TAG, "application/json")
def machine() -> Response:
    """Describe this API as OpenAPI 3.1."""
    return as_json(openapi.document(current_app))


@blueprint.get("/docs")
@endpoint("Pages", "text/html")
def human() -> Response:
    """Show the documentation: an overview, and what each problem means."""
    document = openapi.document(current_app)
    return as_page(
        "docs/index.html",
        document=document,
        sections=_sections(document),
        problems=problem_kinds.KINDS,
        address=own_address(),
        keys_required=core().settings.keys_required,
    )


@blueprint.get("/docs/<section>")
@endpoint("Pages", "text/html", problems=("not_found",))
def part(section: str) -> Response:
    """Show one section of the documentation, with a form to try each operation."""
    document = openapi.document(current_app)
    values: dict[str, Any] = {"document": document, "sections": _sections(document), "here": section}
    if section == _SCHEMAS:
        return as_page("docs/schemas.html", **values)
    values["section"] = next((item for item in values["sections"] if item["slug"] == section), None)
    if values["section"] is None:
        raise Problem("not_found", f"the documentation has no section {section[:60]!r}; /docs lists all sections")
    return as_page("docs/section.html", **values, keys_required=core().settings.keys_required)


@blueprint.get("/ui/learn")
@endpoint("Pages", "text/html", scope=PUBLIC)
def terms() -> Response:
    """Explain the terms of machine learning, with examples from the reader's own jobs; a page without a key."""
    g.browser = reader = browser()
    has_jobs = reader is not None or not core().settings.keys_required
    values = learn.examples(owner=reader.owner if reader is not None else None, has_jobs=has_jobs)
    return as_page("docs/learn.html", terms=TERMS, **values)


def _sections(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The endpoints by tag, in the order of the tags."""
    schemas = document["components"]["schemas"]
    sections: dict[str, dict[str, Any]] = {
        tag["name"]: tag | {"slug": tag["name"].lower(), "operations": []} for tag in document["tags"]
    }
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            sections[operation["tags"][0]]["operations"].append(_operation(path, method, operation, schemas))
    return list(sections.values())


def _operation(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """An operation with its form."""
    return operation | {
        "path": path,
        "method": method.upper(),
        "fields": [_field(parameter, schemas) for parameter in operation["parameters"]],
        "body": _body(operation, schemas),
        "media": _media(operation),
        "destructive": method == "delete" or path.endswith(_DESTRUCTIVE),
    }


def _field(parameter: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """A parameter as a form field, with its options if it is an enum."""
    return {
        "name": parameter["name"],
        "in": parameter["in"],
        "required": parameter["required"],
        "example": parameter.get("example", ""),
        **_input(parameter["schema"], schemas),
    }


def _input(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The form input for a schema."""
    kind, options = "text", []
    for option in [schema, *schema.get("anyOf", [])]:
        if "$ref" in option:
            option = schemas.get(option["$ref"].rpartition("/")[2], {})
        if "enum" in option:
            options = [str(value) for value in option["enum"]]
        elif option.get("type") in ("integer", "number"):
            kind = "number"
        elif option.get("type") == "boolean":
            options = ["true", "false"]
        elif option.get("format") == "binary":
            kind = "file"
    default = schema.get("default")
    text = "" if default in (None, [], "") else str(default).lower() if isinstance(default, bool) else str(default)
    return {"kind": kind, "options": options, "default": text}


def _body(operation: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any] | None:
    """The request body: JSON examples, or form fields."""
    content = operation.get("requestBody", {}).get("content", {})
    for media, media_content in content.items():
        model = media_content["schema"]["$ref"].rpartition("/")[2]
        fields = [
            {"name": name, "description": field.get("description", ""), **_input(field, schemas)}
            for name, field in schemas[model].get("properties", {}).items()
        ]
        examples = {name: example["value"] for name, example in media_content.get("examples", {}).items()}
        is_form = media == "multipart/form-data"
        return {"media": media, "model": model, "fields": fields if is_form else [], "examples": examples}
    return None


def _media(operation: dict[str, Any]) -> list[str]:
    """The media types of successful responses."""
    responses = [response for status, response in operation["responses"].items() if status.startswith("2")]
    media_types = dict.fromkeys(media for response in responses for media in response.get("content", {}))
    return [media for media in media_types if media != "application/problem+json"]
