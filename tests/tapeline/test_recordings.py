"""Every recorded exchange fits the API as ``/openapi.json`` describes it, and every operation in use is recorded.

A recording that no longer fits is out of date: record it again with ``python -m tests.tapeline.record``.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import jsonschema
import pytest

from service.web.app import build_app
from service.web.docs import openapi
from tests.tapeline.stub.recordings import COMMAND, Exchange, load_all

ROOT: Final = Path(__file__).parents[2]
EXCHANGES: Final = dict(load_all())
FILES: Final = sorted({name.partition(":")[0] for name in EXCHANGES})
PROBLEM: Final = "application/problem+json"

ONLY_REFUSED: Final = {
    "/jobs/{job_id}/retry",  # of a job whose workers were lost again and again
    "/keys/{key_id}/rotate",  # by a service that requires keys
    "/models/{model_name}/versions/{version}/approvals",  # likewise, with another key
}
"""Operations that succeed only in a service that is not recorded."""
UNUSED: Final = {
    ("GET", "/jobs/{job_id}/events"),
    ("GET", "/jobs/{job_id}/samples"),
    ("GET", "/sweeps/{sweep_id}/curves"),
    ("GET", "/jobs/{job_id}/artifacts"),  # from the thousandth file on: stub/test_downloads.py
}
"""Operations that a computed path could name, since the sources have the last word of it, but does not."""

RESOURCES: Final = ("/jobs/*", "/sweeps/*")
"""What ``self._path`` of a job or a sweep stands for."""

Document = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Document:
    return openapi.document(build_app())


@pytest.fixture(scope="module")
def check(document: Document) -> Callable[[str, Any], None]:
    """A function that checks a value against a schema of the API, given as a JSON pointer or as itself."""

    @cache
    def validator(schema: str) -> Any:
        return jsonschema.Draft202012Validator(json.loads(schema) | {"components": document["components"]})

    def check(schema: Mapping[str, Any], value: Any) -> None:
        error = jsonschema.exceptions.best_match(validator(json.dumps(schema)).iter_errors(value))
        assert error is None, f"{error.json_path}: {error.message[:300]}"

    return check


def operation_of(document: Document, request: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The path in the API, and the operation, of a recorded request."""
    path = request["path"].partition("?")[0]
    templates = [
        template for template in document["paths"] if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path)
    ]
    assert templates, f"the API has no path {path}"
    template = min(templates, key=lambda text: text.count("{"))
    operations: dict[str, Any] = document["paths"][template]
    assert request["method"].lower() in operations, f"{template} has no {request['method']}"
    return template, operations[request["method"].lower()]


@pytest.mark.parametrize("file", FILES)
def test_every_recorded_exchange_of_a_file_fits_the_api(
    document: Document, check: Callable[..., None], file: str
) -> None:
    faults = []
    for name, exchange in EXCHANGES.items():
        if name.startswith(f"{file}: "):
            try:
                check_exchange(document, check, exchange)
            except AssertionError as error:
                faults.append(f"{name}: {error}")
    assert not faults, "\n".join([f"record them again: {COMMAND}", *faults])


def test_there_are_recordings() -> None:
    assert len(EXCHANGES) > 300


def check_exchange(document: Document, check: Callable[..., None], exchange: Exchange) -> None:
    request, response = exchange["request"], exchange["response"]
    if response["status"] == 404 and response["json"]["code"] == "not_found":
        return  # no operation: the client was given a name that makes no path
    _, operation = operation_of(document, request)
    described = operation["responses"].get(str(response["status"]))
    assert described is not None, f"{response['status']} is not among {sorted(operation['responses'])}"
    if response["status"] < 400:
        check_parameters(operation, request, check)
        check_body(operation, request, check)
    media_type = response["headers"].get("Content-Type", "").partition(";")[0]
    if response["status"] in (204, 303):
        return
    assert media_type in described["content"], f"{media_type} is not among {sorted(described['content'])}"
    if media_type in ("application/json", PROBLEM):
        check(described["content"][media_type]["schema"], response["json"])
    elif media_type == "text/event-stream":
        check_stream(response["text"])


def check_parameters(operation: Mapping[str, Any], request: Mapping[str, Any], check: Callable[..., None]) -> None:
    schemas = {item["name"]: item["schema"] for item in operation["parameters"] if item["in"] == "query"}
    for name, text in parse_qsl(request["path"].partition("?")[2]):
        assert name in schemas, f"the parameter {name} is not among {sorted(schemas)}"
        types = json.dumps(schemas[name])
        is_number = any(f'"{kind}"' in types for kind in ("integer", "number", "boolean"))
        value = json.loads(text) if is_number and re.fullmatch(r"-?[\d.]+(e-?\d+)?|true|false", text) else text
        check(schemas[name], text.split(",") if '"array"' in types else value)


def check_body(operation: Mapping[str, Any], request: Mapping[str, Any], check: Callable[..., None]) -> None:
    content = operation.get("requestBody", {}).get("content", {})
    if "json" in request:
        check(content["application/json"]["schema"], request["json"])
    if "form" in request:
        assert "multipart/form-data" in content


def check_stream(text: str) -> None:
    """Each event has a type and JSON data; the numbers have no gaps."""
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n") if block]
    for block in blocks:
        assert block["event"]
        json.loads(block["data"])
    numbers = [int(block["id"]) for block in blocks if "id" in block]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True


def used_operations() -> set[tuple[str, str]]:
    """Methods and paths that the sources of the client and the commands name; ``*`` is what they compute."""
    used = set[tuple[str, str]]()
    for path in [*(ROOT / "tapeline").rglob("*.py"), *(ROOT / "service" / "cli").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                for method, argument in zip(node.args, node.args[1:], strict=False):
                    if isinstance(method, ast.Constant) and method.value in ("GET", "POST", "PATCH", "PUT", "DELETE"):
                        used |= {(method.value, pattern) for pattern in patterns_of(argument)}
            elif isinstance(node, ast.JoinedStr):
                used |= {("GET", pattern) for pattern in patterns_of(node) if pattern.count("/") > 1}
    return used


def patterns_of(node: ast.expr) -> Iterator[str]:
    """The path that an expression stands for, if it is one."""
    match node:
        case ast.Constant(value=str(text)):
            yield re.sub(r"\{\w+\}", "*", text).partition("?")[0]
        case ast.Attribute(attr="_path"):
            yield from RESOURCES
        case ast.JoinedStr(values=values):
            text = "".join(
                value.value
                if isinstance(value, ast.Constant)
                else "/RESOURCE"
                if isinstance(value, ast.FormattedValue) and ast.unparse(value.value) == "self._path"
                else "*"
                for value in values
            )
            if re.match(r"/\w", text):
                texts = [text.replace("/RESOURCE", path) for path in RESOURCES] if "/RESOURCE" in text else [text]
                yield from (path.partition("?")[0] for path in texts)


def literals() -> set[str]:
    """All short strings in the sources of the client and the commands."""
    paths = [*(ROOT / "tapeline").rglob("*.py"), *(ROOT / "service" / "cli").rglob("*.py")]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return {node.value for node in nodes if isinstance(node.value, str)}


def test_every_operation_that_the_client_or_a_command_uses_is_recorded(document: Document) -> None:
    recorded = set()
    for exchange in EXCHANGES.values():
        if exchange["response"]["status"] == 404:
            continue
        template, _ = operation_of(document, exchange["request"])
        if exchange["response"]["status"] < 400 or template in ONLY_REFUSED:
            recorded.add((exchange["request"]["method"], template))
    words = literals()
    needed = set()
    for method, pattern in used_operations():
        expression = re.compile(re.escape(pattern).replace(r"\*", "[^/]+"))
        for template, operations in document["paths"].items():
            path = re.sub(r"\{\w+\}", "x", template)
            parts = [*zip(path.split("/"), pattern.split("/"), strict=False)]
            computed = {word for word, part in parts[3:] if part == "*" and word != "x"}
            is_item = all(word == "x" for word, part in parts[2:3] if part == "*")
            if expression.fullmatch(path) and method.lower() in operations and is_item and computed <= words:
                needed.add((method, template))
    needed -= UNUSED
    assert len(needed) > 40, sorted(needed)
    assert {("POST", "/jobs/{job_id}/cancel"), ("GET", "/sweeps/{sweep_id}/decisions")} <= needed
    assert sorted(needed - recorded) == []


JOB_NAME: Final = next(
    (name for name, item in EXCHANGES.items() if re.fullmatch(r"/jobs/job_\w+", item["request"]["path"])), ""
)
Change = Callable[[Any, Any], Mapping[str, Any]]


@pytest.mark.parametrize(
    "change",
    [
        lambda path, job: {"response": {"json": {name: value for name, value in job.items() if name != "status"}}},
        lambda path, job: {"response": {"json": job | {"tags": "none"}}},
        lambda path, job: {"response": {"json": job | {"status": "sleeping"}}},
        lambda path, job: {"response": {"status": 418}},
        lambda path, job: {"response": {"headers": {"Content-Type": "text/csv"}}},
        lambda path, job: {"request": {"path": "/works/1"}},
        lambda path, job: {"request": {"method": "PUT"}},
        lambda path, job: {"request": {"path": f"{path}?full=1"}},
    ],
    ids=["missing field", "type", "state", "status", "media type", "path", "method", "parameter"],
)
def test_a_recording_that_does_not_fit_the_api_is_found(
    document: Document, check: Callable[..., None], change: Change
) -> None:
    recorded = EXCHANGES[JOB_NAME]
    changed = change(recorded["request"]["path"], recorded["response"]["json"])
    exchange = {name: recorded[name] | changed.get(name, {}) for name in ("request", "response")}
    with pytest.raises(AssertionError):
        check_exchange(document, check, exchange)
