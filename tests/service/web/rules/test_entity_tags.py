"""Whoever has the current version of something does not get it again, and changes no other version."""

from __future__ import annotations

import pytest

from tests.service.web.rules.operations import unreached
from tests.service.web.rules.populated import PopulatedService

OTHER = '"0123456789abcdef"'


def test_a_tagged_response_is_not_sent_to_a_client_that_has_it(
    populated: PopulatedService, subtests: pytest.Subtests
) -> None:
    operations = [operation for operation in populated.operations if operation.method == "GET"]
    reached, tagged = [], 0
    for operation in operations:
        with subtests.test(str(operation)):
            values, full = populated.find(operation)
            reached.append(operation)
            is_documented = "If-None-Match" in operation.parameters("header")
            assert ("ETag" in full.headers, "304" in operation.document["responses"]) == (is_documented, is_documented)
            if not is_documented:
                continue
            tagged += 1
            tag, caller = full.headers["ETag"], populated.admitted(operation)
            for condition in (tag, f"W/{tag}", f"{OTHER}, {tag}", "*"):
                response = caller.send(operation, values, headers={"If-None-Match": condition})
                assert (response.status_code, response.data) == (304, b""), condition
                assert response.headers["ETag"] == tag
                assert response.headers.get("Cache-Control") == full.headers.get("Cache-Control")
                assert "Content-Type" not in response.headers
            again = caller.send(operation, values, headers={"If-None-Match": OTHER})
            assert (again.status_code, again.headers["ETag"], again.data) == (200, tag, full.data)
            head = caller.send(operation, values, method="HEAD")
            assert (head.status_code, head.headers["ETag"], head.data) == (200, tag, b"")
    assert unreached(operations, reached, {}) == set()
    assert tagged > 10


ALIAS = "/models/{model_name}/aliases/{alias}"
CHANGES = {f"PUT {ALIAS}": ({"version": 1}, {"version": 1})}
"""A body that would change something, and one that changes nothing; by default, those of a job."""
MOVING = {
    f"DELETE {ALIAS}": "tests/service/features/registry/test_operations.py removes and moves aliases",
    f"POST {ALIAS}/rollback": "the same",
}


def test_a_request_for_another_version_is_refused(populated: PopulatedService, subtests: pytest.Subtests) -> None:
    operations = [operation for operation in populated.operations if "If-Match" in operation.parameters("header")]
    tags = {operation.path: operation for operation in populated.operations if operation.method == "GET"}
    reached = []
    for operation in operations:
        if str(operation) in MOVING:
            continue
        reached.append(operation)
        with subtests.test(str(operation)):
            values, full = populated.find(tags[operation.path])
            tag, caller = full.headers["ETag"], populated.admitted(operation)
            change, same = CHANGES.get(str(operation), ({"starred": True}, {"starred": False}))
            bodies = [{"json": body} if operation.takes_json else {} for body in (change, same)]
            for condition in (OTHER, f"W/{tag}"):
                refused = caller.send(operation, values, headers={"If-Match": condition}, **bodies[0])
                assert (refused.status_code, refused.json["code"]) == (412, "precondition_failed")
            assert populated.find(tags[operation.path])[1].headers["ETag"] == tag
            for condition in (tag, f"{OTHER}, {tag}", "*"):
                assert caller.send(operation, values, headers={"If-Match": condition}, **bodies[1]).status_code == 200
    assert unreached(operations, reached, MOVING) == set()
    assert len(operations) > 4
