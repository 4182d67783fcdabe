"""A request that is repeated with its ``Idempotency-Key`` has no second effect."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.service.web.rules.operations import Operation, leaves, replaced
from tests.service.web.rules.populated import PopulatedService


def test_a_repeated_request_gets_the_same_response_and_creates_nothing(
    populated: PopulatedService, subtests: pytest.Subtests
) -> None:
    operations = [item for item in populated.operations if "Idempotency-Key" in item.parameters("header")]
    assert {item.method for item in operations} == {"POST"}
    ann, bob = populated.callers["ann"], populated.callers["bob"]
    for operation in operations:
        headers = {"Idempotency-Key": f"once, for {operation}"}
        with subtests.test(str(operation)):
            bodies = _bodies(populated, operation)
            values, first = populated.find(operation, headers=headers, **bodies[0])
            count = _count(populated)
            assert first.status_code == 201
            assert "Idempotency-Replayed" not in first.headers
            for _ in range(2):
                repeated = ann.send(operation, values, headers=headers, **bodies[0])
                assert (repeated.status_code, repeated.data) == (201, first.data)
                assert repeated.headers["Idempotency-Replayed"] == "true"
                assert repeated.headers["Location"] == first.headers["Location"]
            others = [item for item in populated.objects(operation) if item != values] or [values]
            other = ann.send(operation, values if operation.takes_json else others[0], headers=headers, **bodies[1])
            assert (other.status_code, other.json["code"]) == (422, "idempotency_conflict")
            assert _count(populated) == count
            bobs = bob.send(
                operation, {"job_id": populated.ids["bobs"]}, headers=headers, **_bodies(populated, operation, "bob")[0]
            )
            assert "Idempotency-Replayed" not in bobs.headers
            assert bobs.status_code == 201 or bobs.json["code"] == "not_comparable"
            fresh = ann.send(operation, values, headers={"Idempotency-Key": f"again, for {operation}"}, **bodies[0])
            assert fresh.status_code == 201
            assert fresh.json["id"] != first.json["id"]
            for malformed in ("", "x" * 256, "é"):
                refused = ann.send(operation, values, headers={"Idempotency-Key": malformed}, **bodies[0])
                assert (refused.status_code, refused.json["code"]) == (400, "invalid_parameter")
                assert refused.json["errors"][0]["parameter"] == "Idempotency-Key"
    assert len(operations) > 4


def _bodies(populated: PopulatedService, operation: Operation, owner: str = "ann") -> list[dict[str, Any]]:
    """Two valid bodies that differ; the ids in the documented ones become those of this owner's jobs."""
    if not operation.takes_json:
        return [{}, {}]
    own = [populated.ids["bobs"]] * 2 if owner == "bob" else [populated.ids["classifier"], populated.ids["other"]]
    bodies = []
    for ids, body in itertools.product((own, own[::-1]), operation.bodies):
        names = iter(ids)
        for path, value in list(leaves(body)):
            if str(value).startswith("job_"):
                body = replaced(body, path, next(names))
        bodies.append(body)
    return [{"json": bodies[0]}, {"json": bodies[1]}]


def _count(populated: PopulatedService) -> int:
    """The number of Ann's jobs and sweeps."""
    jobs = populated.post("ann", "/jobs?counts=true&limit=1", None, method="GET")["counts"]
    return sum(jobs.values()) + len(populated.post("ann", "/sweeps?limit=100", None, method="GET")["data"])
