"""What no id and no value can be is a clean problem on both databases, which refuse some texts and numbers."""

from __future__ import annotations

import itertools

import pytest

from service.runtime.settings import Auth
from tests.service.web.conftest import MakeApp
from tests.service.web.rules.operations import unreached
from tests.service.web.rules.populated import CLASSIFIER, OPERATOR_KEY, SWEEP, TEN, PopulatedService, open_service

MALFORMED = ("%00", "%FF", "9" * 30, "x" * 300, "..%2F..")
"""URL-encoded."""
ANY_ID = dict.fromkeys(
    ("GET /uploads/{upload_id}", "DELETE /uploads/{upload_id}"),
    "its sender chooses the id, and the upload may not have begun",
)


@pytest.fixture
def small_stock(make_app: MakeApp, migrated_url: str) -> PopulatedService:
    """A service with one finished job and one sweep."""
    populated = open_service(make_app(migrated_url, auth=Auth.KEYS, api_keys=(OPERATOR_KEY,)))
    populated.ids["classifier"] = populated.submit(**CLASSIFIER | {"layers": TEN})
    populated.worker.claim()
    populated.worker.commit_epoch(1)
    populated.worker.succeed()
    populated.ids |= {
        "sweep": populated.post("ann", "/sweeps", SWEEP)["id"],
        "group": "folds_none",
        "images": "mnist-10k",
    }
    populated.ids["other"] = populated.ids["bobs"] = populated.ids["classifier"]
    return populated


def test_a_malformed_id_is_not_found(small_stock: PopulatedService, subtests: pytest.Subtests) -> None:
    operations = [operation for operation in small_stock.operations if "{" in operation.path]
    reached = []
    for operation in operations:
        if str(operation) in ANY_ID:
            continue
        reached.append(operation)
        caller = small_stock.admitted(operation)
        valid = next(iter(small_stock.objects(operation)))
        body = {"json": operation.bodies[0]} if operation.takes_json else {}
        query = small_stock.query(operation)
        with subtests.test(str(operation)):
            for name, value in itertools.product(operation.parameters("path"), MALFORMED):
                response = caller.send(
                    operation, {**valid, name: value}, query_string=query, may_be_no_route=True, **body
                )
                is_link = name == "token" and "link" in response.json["code"]
                assert response.status_code in (404, 422) or is_link, (value, response.text)
    assert unreached(operations, reached, ANY_ID) == set()


def test_a_parameter_that_no_database_can_store_is_refused_or_ignored(
    small_stock: PopulatedService, subtests: pytest.Subtests
) -> None:
    for operation in small_stock.operations:
        if operation.method == "GET":
            values = next(iter(small_stock.objects(operation)))
            with subtests.test(str(operation)):
                for name in operation.parameters("query"):
                    query = small_stock.query(operation) | {name: "\0"}
                    response = small_stock.admitted(operation).send(operation, values, query_string=query)
                    assert response.status_code < 500
