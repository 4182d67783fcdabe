"""docs/api.md lists the operations that /openapi.json describes, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from flask.testing import FlaskClient

DOCUMENT = Path(__file__).parents[4] / "docs" / "api.md"


def test_the_document_lists_each_operation_once(client: FlaskClient) -> None:
    paths = client.get("/openapi.json").get_json()["paths"]
    operations = [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]
    listed = re.findall(r"^\| `([A-Z]+ /\S*)` \| ", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(operations)


def test_no_two_schemas_share_a_name(client: FlaskClient) -> None:
    """Pydantic puts modules into the names of such schemas, and client generators then fail."""
    schemas = client.get("/openapi.json").json["components"]["schemas"]
    assert [name for name in schemas if "__" in name] == []
