"""Every error is a problem document with a code that the operation documents; ``Caller`` checks that of all rules.

Here are the errors that no other rule provokes.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.web.http import slots
from tests.service.web.rules.operations import Operation
from tests.service.web.rules.populated import CLASSIFIER, SWEEP, TEN, PopulatedService

ROOT = Path(__file__).parents[4]
TOO_LARGE = b'{"' + b"x" * 2**20 + b'":1}'
PADDING = 2**16 * " "
"""What makes a body large enough to need a slot."""
QUERIES = {"predicted_labels": "true", "checkpoint": "2"}
"""URL parameters with which an operation does not merely send a file."""


def test_reading_what_does_not_exist_yet_or_at_all_is_a_documented_problem(
    populated: PopulatedService, subtests: pytest.Subtests
) -> None:
    """Every GET is sent for each of Ann's objects: those of another kind, and those without results."""
    codes = set[str]()
    for operation in populated.operations:
        if operation.method == "GET" and "{" in operation.path:
            with subtests.test(str(operation)):
                for values in _each_once(populated, operation):
                    response = populated.admitted(operation).send(
                        operation, values, query_string=populated.query(operation)
                    )
                    codes.add(response.json["code"] if response.status_code >= 400 else "")
    assert codes >= {"wrong_kind", "not_yet", "wrong_dataset_kind", "artifact_not_found", "not_found"}


def test_what_the_state_does_not_allow_is_a_documented_problem(
    populated: PopulatedService, subtests: pytest.Subtests
) -> None:
    """An action is requested twice, of a job or a sweep that has just been created."""
    operations = [item for item in populated.operations if "illegal_transition" in item.codes(409)]
    ann = populated.callers["ann"]
    for operation in operations:
        with subtests.test(str(operation)):
            job_id = populated.submit(**CLASSIFIER | {"layers": TEN})
            sweep_id = populated.post("ann", "/sweeps", SWEEP)["id"]
            body = {"json": operation.bodies[0]} if operation.takes_json else {}
            responses = [ann.send(operation, {"job_id": job_id, "sweep_id": sweep_id}, **body) for _ in range(2)]
            assert (responses[-1].status_code, responses[-1].json["code"]) == (409, "illegal_transition")
            assert "allowed_actions" in responses[-1].json
    assert len(operations) > 8


def test_a_body_that_cannot_be_read_is_a_documented_problem(
    populated: PopulatedService, subtests: pytest.Subtests
) -> None:
    operations = [item for item in populated.operations if item.takes_json]
    for operation in operations:
        with subtests.test(str(operation)):
            values = next(iter(populated.objects(operation)))
            caller = populated.admitted(operation)
            for content, media_type, status, code in (
                (b"{", "application/json", 400, "malformed_json"),
                (b"{}", "text/plain", 415, "unsupported_media_type"),
                (TOO_LARGE, "application/json", 413, "body_too_large"),
            ):
                response = caller.send(operation, values, data=content, content_type=media_type)
                assert (response.status_code, response.json["code"]) == (status, code)
            for values in populated.objects(operation):
                response = caller.send(operation, values, json=[1])
                if response.status_code != 409:
                    break
            assert response.status_code == 422
            assert response.json["errors"]
    assert len(operations) > 8


def test_a_request_from_or_for_another_site_is_a_documented_problem(
    populated: PopulatedService, subtests: pytest.Subtests
) -> None:
    for operation in populated.operations:
        with subtests.test(str(operation)):
            values = next(iter(populated.objects(operation)))
            response = populated.admitted(operation).send(operation, values, headers={"Host": "evil.example"})
            assert (response.status_code, response.json["code"]) == (421, "foreign_host")
            if operation.method != "GET":
                headers = {"Origin": "http://evil.example"}
                response = populated.callers["nobody"].send(operation, values, headers=headers)
                assert (response.status_code, response.json["code"]) == (403, "foreign_origin")


def test_operations_without_a_slot_are_refused_and_say_when_to_try_again(
    populated: PopulatedService, subtests: pytest.Subtests
) -> None:
    # Bodies are refused before they are parsed; other operations than these would change Ann's objects.
    operations = [operation for operation in populated.operations if operation.method == "GET" or operation.content]
    refused = 0
    with _no_slots():
        for operation in operations:
            with subtests.test(str(operation)):
                documented = not operation.codes(503).isdisjoint({"busy", "too_many_uploads"})
                assert _is_refused(populated, operation) == documented
                refused += documented
    assert refused > 20


def test_the_documentation_lists_all_slots() -> None:
    section = (ROOT / "docs" / "security.md").read_text("utf-8").partition("\n## Slots\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    pools = [[pool.work, pool.size, pool._most_slots("ann"), pool.waiting] for pool in slots.POOLS]
    assert rows[2:] == [list(map(str, pool)) for pool in pools]


@contextmanager
def _no_slots() -> Iterator[None]:
    """Let others occupy all slots, and all places to wait for one."""
    with ExitStack() as occupied, pytest.MonkeyPatch.context() as patched:
        for pool in slots.POOLS:
            patched.setattr(pool, "waiting", 0)
            for number in range(pool.size):
                occupied.enter_context(pool.slot(f"other {number}"))
        yield


def _is_refused(populated: PopulatedService, operation: Operation) -> bool:
    """Whether the operation is refused for one of Ann's objects, because there is no slot."""
    body: dict[str, Any] = {}
    if operation.takes_json:
        body = {"data": json.dumps(operation.bodies[0]) + PADDING, "content_type": "application/json"}
    known = operation.parameters("query")
    query = populated.query(operation) | {name: value for name, value in QUERIES.items() if name in known}
    for values in populated.objects(operation):
        response = populated.admitted(operation).send(operation, values, query_string=query, **body)
        if response.status_code == 503:
            assert response.json["code"] in ("busy", "too_many_uploads")
            assert int(response.headers["Retry-After"]) == response.json["retry_after_s"] == 5
            assert "send fewer at a time, or try again in 5 seconds" in response.json["detail"]
            return True
    return False


def _each_once(populated: PopulatedService, operation: Operation) -> list[dict[str, str]]:
    """Ann's objects, with one cell of the confusion matrix of each."""
    cells = itertools.groupby(
        populated.objects(operation), key=lambda values: (values.get("job_id"), values.get("name"))
    )
    return [dict(next(group)) for _, group in cells]
