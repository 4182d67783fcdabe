"""The ``endpoint`` decorator, checked on every view."""

from __future__ import annotations

from flask import Flask
from flask.testing import FlaskClient
from pydantic import BaseModel

from service.web.endpoints import endpoint
from service.web.openapi.operations import Operation, operation_of
from service.web.schemas.queries import Query

PROBES = {"/healthz", "/readyz", "/metrics"}
PATH_ARGUMENTS = {
    "job_id": "job_01J00000000000000000000000",
    "artifact_id": "art_01J00000000000000000000000",
    "true": "1",
    "predicted": "1",
    "index": "1",
    "sweep_id": "swp_01J00000000000000000000000",
}


def _operations(app: Flask) -> list[tuple[str, str, Operation]]:
    operations = []
    for rule in app.url_map.iter_rules():
        operation = operation_of(app.view_functions[rule.endpoint])
        if operation is None:
            continue
        path = "".join(part if not is_argument else PATH_ARGUMENTS.get(part, "x") for is_argument, part in rule._trace)
        operations += [
            (method, path.replace("|", ""), operation) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        ]
    return operations


def test_every_endpoint_except_the_probes_rejects_an_unknown_parameter(app: Flask, client: FlaskClient) -> None:
    checked = 0
    for method, path, operation in _operations(app):
        answer = client.open(path, method=method, query_string={"nonsense": "1"})
        if path in PROBES:
            assert operation.query is None
            assert answer.status_code in (200, 503)
            continue
        assert answer.status_code == 400, (method, path, answer.text)
        assert answer.json["code"] == "invalid_parameter"
        assert "nonsense" in {error["parameter"] for error in answer.json["errors"]}
        checked += 1
    assert checked > 60


def test_every_json_body_requires_the_json_content_type(app: Flask, client: FlaskClient) -> None:
    checked = 0
    for method, path, operation in _operations(app):
        if operation.takes_json:
            answer = client.open(path, method=method, data="x", content_type="text/plain")
            assert (answer.status_code, answer.json["code"]) == (415, "unsupported_media_type"), path
            checked += 1
    assert checked >= 8


class _Answer(BaseModel):
    twice: int


class _Number(Query):
    number: int = 1


def test_a_view_receives_the_validated_query_and_its_model_becomes_json() -> None:
    app = Flask(__name__)

    @app.get("/both/<name>")
    @endpoint("Test", _Answer, status=202, query=_Number)
    def both(name: str, query: _Number) -> tuple[_Answer, dict[str, str]]:
        return _Answer(twice=2 * query.number), {"X-Name": name}

    @app.delete("/nothing")
    @endpoint("Test", None, status=204)
    def nothing() -> None:
        return None

    client = app.test_client()
    answer = client.get("/both/me?number=21")
    assert (answer.status_code, answer.json, answer.headers["X-Name"]) == (202, {"twice": 42}, "me")
    assert client.delete("/nothing").status_code == 204
