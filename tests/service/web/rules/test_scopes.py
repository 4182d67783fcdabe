"""A key may do what its scope says, and nothing else."""

from __future__ import annotations

import pytest

from service.access.keys import Scope
from tests.service.web.rules.populated import PopulatedService

PUBLIC = {"GET /healthz", "GET /readyz", "GET /ui/learn", "GET /ui/sign-in", "POST /session", "DELETE /session"}
PUBLIC |= {"GET /.well-known/tapeline-keys.json"}
"""Operations without a key: for probes, for signing in and out, for readers of a share link, and of a certificate."""
TOKENS = {"GET /shared/{token}", "GET /ui/welcome/{token}", "POST /session/{token}"}
"""Operations whose path has a secret in place of a key."""
ADMIN = ("/audit", "/keys", "/owners", "/ui/keys", "/ui/owners")
"""What starts with these paths belongs to the service and not to an owner."""
PUBLISHING = {
    "PATCH /datasets/{name}",
    "POST /workers/{worker_id}/drain",
    "DELETE /workers/{worker_id}/drain",
    "PUT /models/{model_name}/aliases/{alias}/gates",
}
"""Operations of admins on what all owners use, or must meet."""
READING = {
    "POST /jobs/{job_id}/predict",
    "POST /jobs/{job_id}/generate",
    "POST /models/{reference}/predict",
    "POST /models/{reference}/generate",
}
"""Operations that change nothing although their method is POST."""
KEYS = {Scope.READ: "carol", Scope.SUBMIT: "bob", Scope.ADMIN: "operator"}


def test_every_operation_needs_the_scope_of_what_it_does(
    populated: PopulatedService, subtests: pytest.Subtests
) -> None:
    """An unknown parameter keeps an operation that is allowed from being executed."""
    assert {str(operation) for operation in populated.operations} >= PUBLIC | READING
    for operation in populated.operations:
        expected: str = Scope.READ if operation.method == "GET" or str(operation) in READING else Scope.SUBMIT
        if operation.path.startswith(ADMIN) or str(operation) in PUBLISHING:
            expected = Scope.ADMIN
        if str(operation) in PUBLIC | TOKENS:
            expected = "public"
        with subtests.test(str(operation)):
            assert operation.scope == expected
            for scope, owner in KEYS.items():
                response = populated.callers[owner].send(operation, {}, query_string={"nonsense": "1"})
                if expected == "public" or scope.covers(Scope(expected)):
                    assert response.status_code in (200, 400)
                else:
                    problem = response.json
                    assert (response.status_code, problem["code"]) == (403, "scope_missing")
                    assert (problem["needed"], problem["scope"]) == (expected, scope)
            response = populated.callers["nobody"].send(operation, {}, query_string={"nonsense": "1"})
            if expected == "public":
                assert response.status_code in (200, 400)
            else:
                assert (response.status_code, response.json["code"]) == (401, "key_required")
                assert response.headers["WWW-Authenticate"].startswith("Bearer")
