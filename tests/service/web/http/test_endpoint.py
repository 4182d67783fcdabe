"""The ``endpoint`` decorator, checked on every view."""

from __future__ import annotations

from flask import Flask
from pydantic import BaseModel

from service.web.http.endpoint import endpoint
from service.web.http.queries import Query

PROBES = {"/healthz", "/readyz", "/metrics"}
PATH_ARGUMENTS = {
    "job_id": "job_01J00000000000000000000000",
    "artifact_id": "art_01J00000000000000000000000",
    "true": "1",
    "predicted": "1",
    "index": "1",
    "sweep_id": "swp_01J00000000000000000000000",
}


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
