"""A JSON response has the fields that the document lists, no more and no fewer."""

from __future__ import annotations

import pytest

from tests.service.web.rules.populated import PopulatedService


def test_responses_have_the_documented_fields(populated: PopulatedService, subtests: pytest.Subtests) -> None:
    (document,) = [operation for operation in populated.operations if operation.path == "/openapi.json"]
    schemas = populated.callers["ann"].send(document, {}).json["components"]["schemas"]
    checked = 0
    for operation in populated.operations:
        content = operation.document["responses"].get("200", {}).get("content", {})
        reference = content.get("application/json", {}).get("schema", {}).get("$ref")
        if operation.method == "GET" and reference is not None:
            checked += 1
            with subtests.test(str(operation)):
                _, response = populated.find(operation)
                assert set(response.json) == set(schemas[reference.rpartition("/")[2]]["properties"])
    assert checked > 30
