"""A URL parameter, a body field or a form field that does not exist is refused, and named."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest

from tests.service.web.rules.operations import HTML, leaves, replaced, unreached
from tests.service.web.rules.populated import PopulatedService

NAME = "nonsense"
PROBES = {
    "GET /healthz": "a probe may add parameters of its own",
    "GET /readyz": "a probe may add parameters of its own",
    "GET /metrics": "Prometheus may add parameters of its own",
}


def test_an_unknown_parameter_is_named(populated: PopulatedService, subtests: pytest.Subtests) -> None:
    reached = []
    for operation in populated.operations:
        # The ids are unknown, too: an operation that ignored the parameter would find nothing to change.
        response = populated.admitted(operation).send(operation, {}, query_string={NAME: "1"})
        if str(operation) in PROBES:
            assert response.status_code == 200
            continue
        reached.append(operation)
        with subtests.test(str(operation)):
            assert (response.status_code, response.json["code"]) == (400, "invalid_parameter")
            assert (NAME, "unknown_parameter") in {
                (item["parameter"], item["code"]) for item in response.json["errors"]
            }
            if operation.method == "GET":
                page = populated.admitted(operation).send(
                    operation, {}, query_string={NAME: "1"}, headers={"Accept": HTML}, follow_redirects=True
                )
                assert page.status_code == 400
                assert NAME in page.text
    assert unreached(populated.operations, reached, PROBES) == set()


def test_an_unknown_field_of_a_body_is_named(populated: PopulatedService, subtests: pytest.Subtests) -> None:
    """A field is added to every object in the documented bodies."""
    operations = [operation for operation in populated.operations if operation.takes_json]
    reached = []
    for operation in operations:
        for body, path in _objects(operation.bodies):
            pointer = "#/" + "/".join(str(part).replace("/", "~1") for part in (*path, NAME))
            with subtests.test(str(operation), pointer=pointer):
                errors = _errors(populated, operation, replaced(body, (*path, NAME), 1))
                assert pointer in {error["pointer"] for error in errors}
            reached.append(operation)
    assert unreached(operations, reached, {}) == set()


def test_an_unknown_field_of_a_form_is_named(populated: PopulatedService) -> None:
    operations = [operation for operation in populated.operations if "multipart/form-data" in operation.content]
    for operation in operations:
        response = populated.callers["ann"].send(
            operation, {}, data={"name": "mine", NAME: "1", "table": (io.BytesIO(b"a,b\n"), "table.csv")}
        )
        assert response.status_code == 422
        assert NAME in {error["parameter"] for error in response.json["errors"]}
    assert operations


def _errors(populated: PopulatedService, operation: Any, body: Any) -> list[dict[str, Any]]:
    """The faults of a body, for the first of Ann's objects with which the operation is possible."""
    for values in populated.objects(operation):
        response = populated.admitted(operation).send(operation, values, json=body)
        if response.status_code != 409:
            assert response.status_code == 422
            errors: list[dict[str, Any]] = response.json["errors"]
            return errors
    raise AssertionError(f"{operation} is possible with none of Ann's objects")


def _objects(bodies: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], tuple[str | int, ...]]]:
    """Every object in these documents, with its path."""
    for body in bodies:
        paths = {path[:length] for path, _ in leaves(body) for length in range(len(path))}
        yield from ((body, path) for path in paths if isinstance(_part(body, path), dict))


def _part(body: Any, path: tuple[str | int, ...]) -> Any:
    for name in path:
        body = body[name]
    return body
