"""The operations of the OpenAPI document, and requests that check every error response against it."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

HTML = "text/html,application/xhtml+xml,*/*;q=0.8"
STREAM = "text/event-stream"
MEMBERS = {"type", "title", "status", "detail", "instance", "code", "request_id"}

Values = Mapping[str, str]
"""Path parameters by name."""


@dataclass(frozen=True, eq=False)
class Operation:
    """One method of one path, as the OpenAPI document describes it."""

    method: str
    path: str
    document: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def parameters(self, place: str) -> dict[str, dict[str, Any]]:
        """The parameters in the path, the query or the headers, by name."""
        return {item["name"]: item for item in self.document["parameters"] if item["in"] == place}

    @property
    def scope(self) -> str:
        return str(self.document["x-scope"])

    @property
    def takes_json(self) -> bool:
        return "application/json" in self.content

    @property
    def content(self) -> Mapping[str, Any]:
        """The request body by media type."""
        content: Mapping[str, Any] = self.document.get("requestBody", {}).get("content", {})
        return content

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The examples of a JSON body."""
        examples = self.content.get("application/json", {}).get("examples", {})
        return [example["value"] for example in examples.values()]

    def codes(self, status: int) -> set[str]:
        """The problem codes that are documented for a status."""
        response = self.document["responses"].get(str(status), {})
        return set(re.findall(r"`(\w+)`: ", response.get("description", "")))

    def address(self, values: Values) -> str:
        """The path with these parameters; those that are missing are the examples of the document."""
        examples = {name: str(item["example"]) for name, item in self.parameters("path").items()}
        return re.sub(r"{(\w+)}", lambda match: (examples | dict(values))[match[1]], self.path)


class Caller:
    """Sends requests with one API key. Every error must be a problem that the operation documents."""

    def __init__(self, app: Flask, key: str | None) -> None:
        self.client: FlaskClient = app.test_client()
        self.key = key

    def send(
        self,
        operation: Operation,
        values: Values,
        *,
        headers: Mapping[str, str] | None = None,
        method: str | None = None,
        may_be_no_route: bool = False,
        **options: Any,
    ) -> TestResponse:
        """Send a request; the content of a stream is not read.

        Args:
            method: another method than the operation's; its errors are not checked.
            may_be_no_route: The address may be none of any operation's.
        """
        all_headers = dict(headers or {})
        if self.key is not None:
            all_headers.setdefault("Authorization", f"Bearer {self.key}")
        address = operation.address(values)
        response = self.client.open(address, method=method or operation.method, headers=all_headers, **options)
        with closing(response):
            if response.mimetype != STREAM:
                response.get_data()
        if response.status_code >= 400 and response.mimetype != "text/html" and method is None:
            check_problem(operation, response, {"not_found"} if may_be_no_route else set())
        return response

    def first_message(self, operation: Operation) -> str:
        """The first message of a stream, which follows the time to wait before a new connection."""
        headers = {"Authorization": f"Bearer {self.key}"}
        with closing(self.client.get(operation.path, headers=headers)) as response:
            _, message = itertools.islice(response.iter_encoded(), 2)
            return message.decode()


def operations_of(caller: Caller) -> list[Operation]:
    """All operations of the service."""
    headers = {"Authorization": f"Bearer {caller.key}"}
    paths = caller.client.get("/openapi.json", headers=headers).json["paths"]
    return [
        Operation(method.upper(), path, document) for path, item in paths.items() for method, document in item.items()
    ]


def check_problem(operation: Operation, response: TestResponse, also: Set[str]) -> None:
    """Check that an error is a problem document (RFC 9457) with a code that the operation documents."""
    text = f"{operation}: {response.status_code} {response.text[:300]}"
    assert response.mimetype == "application/problem+json", text
    problem = response.json
    assert problem is not None
    assert problem.keys() >= MEMBERS, text
    assert problem["status"] == response.status_code, text
    assert problem["type"] == f"/docs#problem-{problem['code']}", text
    assert problem["request_id"] == response.headers["X-Request-Id"], text
    assert response.headers["Cache-Control"] == "no-store", text
    assert problem["code"] in operation.codes(response.status_code) | also, f"not documented: {text}"


def leaves(body: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """All parts of a JSON document that are not containers, with their paths."""
    items: Iterable[tuple[str | int, Any]]
    match body:
        case dict():
            items = body.items()
        case list():
            items = enumerate(body)
        case _:
            yield path, body
            return
    for name, value in items:
        yield from leaves(value, (*path, name))


def replaced(body: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy of a JSON document with another value at this path."""
    result = copy.deepcopy(body)
    *outer, last = path
    part = result
    for name in outer:
        part = part[name]
    part[last] = value
    return result


def unreached(operations: Collection[Operation], reached: Collection[Operation], exempt: Mapping[str, str]) -> set[str]:
    """The operations that a rule has not tried, and exemptions without need."""
    missing = {str(operation) for operation in operations} - {str(operation) for operation in reached}
    return missing ^ exempt.keys()
