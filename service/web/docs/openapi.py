"""The OpenAPI 3.1 document, generated from routes and models."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service import kinds
from service.access.keys import Scope
from service.declarations import Entries, extended
from service.kinds import rooms
from service.spec.fields import accepts_shorthand, choices_of
from service.spec.schema import SPEC_MODELS, PredictedData, PredictionSpec
from service.web.docs import examples
from service.web.docs.routes import Route, routes
from service.web.gate.access_checks import COOKIE
from service.web.http import path_parameters, problem_kinds
from service.web.http.endpoint import PUBLIC, Operation, Tag
from service.web.http.queries import NoQuery
from service.web.http.schemas import ResponseModel
from tapeline.version import VERSION

_REFERENCE: Final = "#/components/schemas/{model}"
_COMMON_PROBLEMS: Final = ("invalid_parameter", "foreign_host", "internal", "database_unavailable")
_KEY_PROBLEMS: Final = ("key_required", "scope_missing", "rate_limited")
_WRITE_PROBLEMS: Final = ("foreign_origin", "storage_full")
_LIST_ITEMS: Final = frozenset({"Dense", "Dropout"})
"""Parts of a spec that are list items: presets do not fill in their missing fields."""

SHORTHAND: Final = "Shorthand"
"""Title of the string variant of an object; the form omits this variant."""

_HEADERS: Final = {
    "Idempotency-Key": "A name for this request, 1 to 255 printable characters. Repeating it creates no second job.",
    "If-None-Match": "The `ETag` of the client's cached copy.",
    "If-Match": "The expected `ETag`; if it differs, nothing is changed.",
    "If-Range": "Send the range only if the file still has this `ETag`; otherwise send the whole file.",
    "Range": "One part of the file: `bytes=0-1023`, `bytes=1024-` or `bytes=-1024`.",
    "Prefer": "`wait=30` delays the response until it changes, for at most this many seconds (up to 60).",
    "Upload-Id": "An id for this upload, 8 to 64 letters, digits, dashes and underscores, such as a random UUID: "
    "`GET /uploads/{upload_id}` shows its progress.",
    "traceparent": "The caller's trace, as in W3C Trace Context; it leads to the jobs and their attempts.",
    "Last-Event-ID": "The `id` of the last event that the client has.",
}
_TAGS: Final = {
    "Jobs": "Submit, list, change and control jobs.",
    "Results": "Metrics, events and results of a job.",
    "Inference": "Classify, predict numbers, or generate images, also while the job is running.",
    "Files": "Checkpoints, samples, plots and exports.",
    "Experiments": "Sweeps over settings and seeds, and comparisons of their results.",
    "Datasets": "List, upload and delete datasets.",
    "Service": "Health, workers, the queue, limits and presets.",
    "Sharing": "Links with which anybody may read a job, a sweep or a comparison.",
    "Administration": "Owners, keys, usage and the audit log.",
    "Pages": "The web pages.",
}


_SPECS_AS_SENT: Final[tuple[type[BaseModel], ...]] = (*SPEC_MODELS.values(), PredictionSpec)


@functools.lru_cache(maxsize=1)  # a process has one app, whose routes do not change
def document(app: Flask) -> dict[str, Any]:
    """Describe every endpoint of an app."""
    found, paths = [*routes(app)], dict[str, dict[str, Any]]()
    for route in found:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tapeline",
            "version": VERSION,
            "summary": "Train neural networks as asynchronous jobs.",
            "description": "Errors are `application/problem+json` (RFC 9457). Times are RFC 3339 in UTC. Every "
            "response has an `X-Request-Id`: the client's own, if it sent one. With `Accept: text/html`, as browsers "
            "send it, the response is an HTML page.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _tags(found).items()],
        "security": [{}, {"key": []}, {"cookie": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas([route.operation for route in found]),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key. Not required by a service that is bound to loopback only.",
                },
                "cookie": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": COOKIE,
                    "description": "The session cookie that `POST /session` returns in exchange for a key.",
                },
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation = route.operation
    result: dict[str, Any] = {
        "operationId": route.name.replace(".", "_"),
        "tags": [operation.tag],
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": _responses(route.method, operation),
    }
    default_scope = Scope.READ if route.method == "GET" else Scope.SUBMIT
    result["x-scope"] = str(operation.scope or default_scope)
    if operation.scope == PUBLIC:
        result["security"] = []
    if route.details:
        result["description"] = route.details
    if operation.form is not None:
        result["requestBody"] = _body(operation.form.__name__, "multipart/form-data")
    elif operation.document == "spec":
        result["requestBody"] = _body("SpecAsSent", "application/json")
    elif (model := operation.body or operation.document) is not None:
        result["requestBody"] = _body(model.__name__, "application/json", getattr(model, "EXAMPLES", None))
    for media_type in operation.file_media[:1]:
        result["requestBody"]["content"] |= _response(media_type)["content"]
    return result


def _tags(found: Sequence[Route]) -> dict[str, str]:
    """The sections of the document, and what each is about."""
    declared = dict.fromkeys(route.operation.tag for route in found if isinstance(route.operation.tag, Tag))
    return extended(_TAGS, (Entries(tag.after, {tag: tag.text}) for tag in declared))


def _body(model: str, media_type: str, found: Mapping[str, Any] | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": _REFERENCE.format(model=model)}}
    if bodies := found or examples.BODIES.get(model):
        content["examples"] = {name: {"value": value} for name, value in bodies.items()}
    return {"required": True, "content": {media_type: content}}


def _parameters(route: Route) -> list[dict[str, Any]]:
    operation = route.operation
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": path_parameters.parameter(name).text,
            "schema": {"type": "string"},
            "example": operation.path_examples.get(name, path_parameters.parameter(name).example),
        }
        for name in route.path_names
    ]
    schema = (operation.query or NoQuery).model_json_schema(ref_template=_REFERENCE)
    for name, field in schema.get("properties", {}).items():
        field = {key: value for key, value in field.items() if key != "title"}
        parameter = {"name": name, "in": "query", "required": False, "schema": field}
        if "description" in field:
            parameter["description"] = field.pop("description")
        parameters.append(parameter)
    for name in operation.headers:
        text = _HEADERS[name]
        parameters.append(
            {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
        )
    return parameters


def _responses(method: str, operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {str(operation.status): _response(operation.response)}
    for media_type in operation.other_media:
        responses[str(operation.status)]["content"] |= _response(media_type)["content"]
    if operation.page is not None:
        responses["303"] = {"description": f"With `Accept: text/html`: see the page `{operation.page}`."}
    if operation.query not in (None, NoQuery):
        responses["414"] = {
            "description": "The request line is longer than 8,190 bytes; the web server says so itself."
        }
    for status, other in operation.other_responses.items():
        key = str(status)
        if isinstance(other, str) and key in responses:
            responses[key]["description"] += f" {other}"
        elif isinstance(other, str):
            responses[key] = {"description": other}
        else:
            responses[key] = _response(other)
    codes = [*operation.all_problems, *_COMMON_PROBLEMS, *(_WRITE_PROBLEMS if method != "GET" else ())]
    codes += [code for code in _KEY_PROBLEMS if operation.scope != PUBLIC]
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(problem_kinds.KINDS[code].status, []).append(code)
    for status, problem_codes in sorted(by_status.items()):
        text = " ".join(f"`{code}`: {problem_kinds.KINDS[code].title}" for code in problem_codes)
        content = {"application/problem+json": {"schema": {"$ref": _REFERENCE.format(model="ProblemDocument")}}}
        if str(status) in responses:
            responses[str(status)]["description"] += f" {text}"
            responses[str(status)].setdefault("content", {}).update(content)
        else:
            responses[str(status)] = {"description": text, "content": content}
    return responses


def _response(content: Any) -> dict[str, Any]:
    if content is None:
        return {"description": "Done."}
    if isinstance(content, str):
        schema: dict[str, Any] = (
            {"type": "string"} if content.startswith("text/") else {"type": "string", "format": "binary"}
        )
        if content.endswith("json"):
            schema = {"type": "object"}
        return {"description": content, "content": {content: {"schema": schema}}}
    text = (content.__doc__ or content.__name__).strip().splitlines()[0]
    return {
        "description": text,
        "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(model=content.__name__)}}},
    }


def _schemas(operations: Sequence[Operation]) -> dict[str, Any]:
    responses: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (model, "serialization") for model in _response_models(ResponseModel)
    ]
    schemas: dict[str, Any] = models_json_schema(responses, ref_template=_REFERENCE)[1]["$defs"]
    sent = [body for item in operations for body in (item.body, item.document, item.form) if isinstance(body, type)]
    bodies: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in dict.fromkeys(sent)]
    schemas |= models_json_schema(bodies, ref_template=_REFERENCE)[1]["$defs"]
    for query in {item.query for item in operations if item.query is not None}:
        schemas |= query.model_json_schema(ref_template=_REFERENCE).get("$defs", {})
    spec, definitions = _specs(_REFERENCE)
    schemas = definitions | schemas | {"SpecAsSent": spec}
    return {name: _portable(schema) for name, schema in sorted(schemas.items())}


def _portable(schema: Any) -> Any:
    """A schema without what client generators reject: object defaults, null defaults of non-nullable fields, and
    several enums with one title. None of these affects validation."""
    if isinstance(schema, list):
        return [_portable(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    omitted = {"title"} if schema.get("title") == SHORTHAND else set()
    default = schema.get("default", "")
    if isinstance(default, dict) or (default is None and schema.get("type", "null") != "null"):
        omitted.add("default")
    return {
        key: {name: _portable(item) for name, item in value.items()} if key == "properties" else _portable(value)
        for key, value in schema.items()
        if key not in omitted
    }


def _response_models(base: type[ResponseModel]) -> Iterator[type[ResponseModel]]:
    """All response models, each with the fields that ``with_fields_of`` has given to it."""
    for model in base.__subclasses__():
        extended = [*_response_models(model)]
        if model.__name__ not in {other.__name__ for other in extended}:
            yield model
        yield from extended


def spec_schema() -> dict[str, Any]:
    """The JSON Schema of a spec as sent: with optional fields."""
    spec, definitions = _specs("#/$defs/{model}")
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "title": "Spec", **spec, "$defs": dict(sorted(definitions.items()))}


def _specs(reference: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of a spec, and those of its parts."""
    specs: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in _SPECS_AS_SENT]
    _, generated = models_json_schema(specs, ref_template=reference)
    definitions = {
        name: definition if name in _LIST_ITEMS else _with_optional_fields(definition, name)
        for name, definition in generated["$defs"].items()
    }
    parts = [part for kind in kinds.TRAINED for part in rooms.specs(kind.name).parts]
    for model in (*_SPECS_AS_SENT, *parts):
        _add_shorthands(model, definitions[model.__name__]["properties"])
    text = (
        "What to train: only `kind` is required; the preset supplies every other field. Or what to predict, as a job."
    )
    return {
        "description": text,
        "anyOf": [{"$ref": reference.format(model=model.__name__)} for model, _ in specs],
    }, definitions


def _with_optional_fields(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of a spec as sent: the preset fills in missing fields."""
    relaxed = {key: value for key, value in schema.items() if key != "required"}
    if name in {model.__name__ for model in SPEC_MODELS.values()}:
        relaxed["required"] = ["kind"]
    elif name in {PredictionSpec.__name__, PredictedData.__name__}:
        relaxed["required"] = schema["required"]
    relaxed["properties"] = {field: _any_of(value) for field, value in schema.get("properties", {}).items()}
    return relaxed if schema.get("type") == "object" else schema


def _add_shorthands(model: type[BaseModel], properties: dict[str, Any]) -> None:
    """Allow a name in place of an object: ``"adam"`` for ``{"name": "adam"}``."""
    for name, field in model.model_fields.items():
        if accepts_shorthand(field.annotation):
            choices = choices_of(field.annotation)
            text = {"type": "string", "title": SHORTHAND, "description": 'Short for `{"name": …}`.'}
            schema = properties[name]
            options = schema.get("anyOf", [{key: schema[key] for key in ("$ref",) if key in schema}])
            other_keywords = {key: value for key, value in schema.items() if key not in ("anyOf", "$ref")}
            properties[name] = {"anyOf": [*options, text | ({"enum": choices} if choices else {})], **other_keywords}


def _any_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Replace ``oneOf`` by ``anyOf``: without its name, an object may match several variants."""
    if "oneOf" not in schema:
        return schema
    other_keywords = {key: value for key, value in schema.items() if key not in ("oneOf", "discriminator")}
    return {"anyOf": schema["oneOf"], **other_keywords}
