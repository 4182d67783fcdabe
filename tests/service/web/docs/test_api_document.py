"""docs/api.md lists the operations, and schemas have names of their own."""

from __future__ import annotations

from flask.testing import FlaskClient

from tests.service.web.docs.api_tables import DOCUMENT, updated


def test_the_tables_of_the_document_are_those_of_the_operations() -> None:
    assert updated() == DOCUMENT.read_text(encoding="utf-8"), "write them again: make client"


def test_no_two_schemas_share_a_name(client: FlaskClient) -> None:
    """Pydantic puts modules into the names of such schemas, and client generators then fail."""
    schemas = client.get("/openapi.json").json["components"]["schemas"]
    assert [name for name in schemas if "__" in name] == []
