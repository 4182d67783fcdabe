"""What no id and no value can be is a clean problem on both databases, which refuse some texts and numbers."""

from __future__ import annotations

import itertools

import pytest

from service.runtime.settings import Auth
from tests.service.web.conftest import MakeApp
from tests.service.web.rules.operations import unreached
from tests.service.web.rules.stock import CLASSIFIER, OPERATOR_KEY, SWEEP, TEN, Stock, open_stock

MALFORMED = ("%00", "%FF", "9" * 30, "x" * 300, "..%2F..")
"""URL-encoded."""
ANY_ID = dict.fromkeys(
    ("GET /uploads/{upload_id}", "DELETE /uploads/{upload_id}"),
    "its sender chooses the id, and the upload may not have begun",
)


@pytest.fixture
def small_stock(make_app: MakeApp, migrated_url: str) -> Stock:
    """A service with one finished job and one sweep."""
    stock = open_stock(make_app(migrated_url, auth=Auth.KEYS, api_keys=(OPERATOR_KEY,)))
    stock.ids["classifier"] = stock.submit(**CLASSIFIER | {"layers": TEN})
    stock.worker.claim()
    stock.worker.commit_epoch(1)
    stock.worker.succeed()
    stock.ids |= {"sweep": stock.post("ann", "/sweeps", SWEEP)["id"], "group": "folds_none", "images": "mnist-10k"}
    stock.ids["other"] = stock.ids["bobs"] = stock.ids["classifier"]
    return stock


def test_a_malformed_id_is_not_found(small_stock: Stock, subtests: pytest.Subtests) -> None:
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
    small_stock: Stock, subtests: pytest.Subtests
) -> None:
    for operation in small_stock.operations:
        if operation.method == "GET":
            values = next(iter(small_stock.objects(operation)))
            with subtests.test(str(operation)):
                for name in operation.parameters("query"):
                    query = small_stock.query(operation) | {name: "\0"}
                    response = small_stock.admitted(operation).send(operation, values, query_string=query)
                    assert response.status_code < 500
