from __future__ import annotations

import gzip
import io
import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

from service.spec import strict_json
from service.web.http import problem_kinds, request_limits
from tests.waiting import wait_until

Submit = Callable[..., str]


def check_problem(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    document: dict[str, Any] = response.json
    assert document["code"] == code
    assert document["status"] == status
    assert document["type"] == f"/docs#problem-{code}"
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == response.headers["X-Request-Id"]
    assert "Traceback" not in response.text
    assert 'File "' not in response.text
    return document


def test_large_bodies_are_parsed_one_at_a_time_and_small_ones_do_not_wait(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsing twelve large bodies at once kept the interpreter from all other requests for half a second."""
    parse, parsing, max_parsing, small_arrived = strict_json.parse_json, [0], [0], threading.Event()
    received: list[None] = []
    monkeypatch.setattr(request_limits, "end", lambda: received.append(None))  # called before a body is parsed
    large = json.dumps({"kind": "classifier", **{f"f{number}": 1 for number in range(9000)}}).encode()

    def parse_slowly(body: bytes) -> Any:
        if len(body) < len(large):
            small_arrived.set()
            return parse(body)
        parsing[0] += 1
        max_parsing[0] = max(max_parsing[0], parsing[0])
        assert small_arrived.wait(10)
        parsing[0] -= 1
        return parse(body)

    monkeypatch.setattr(strict_json, "parse_json", parse_slowly)
    with ThreadPoolExecutor(5) as threads:
        futures = [threads.submit(post, app.test_client(), large) for _ in range(4)]
        wait_until(lambda: len(received) == 4 and parsing[0], "the first to be parsed, and the others to arrive")
        assert threads.submit(post, app.test_client(), b"{}").result(10).status_code == 422
        assert [future.result(10).status_code for future in futures] == [422] * 4
    assert max_parsing == [1]


def post(client: FlaskClient, body: bytes | str, content_type: str | None = "application/json") -> TestResponse:
    return client.post("/jobs", data=body, content_type=content_type)


@pytest.mark.parametrize(
    ("body", "line", "column"),
    [
        (b"", 1, 1),
        (b'{"kind": "gan",\n  "epochs": }', 2, 13),
        (b'{"kind": "gan"', 1, 15),
        (b'{"kind": "gan"}}', 1, 16),
        (b"\xff{}", 1, 1),
        (b'{"kind": NaN}', 1, 10),
        (b'{"kind": 1e999}', 1, 10),
        (b'{"kind": "gan", "kind": "gan"}', 1, 2),
    ],
)
def test_malformed_json_is_located(client: FlaskClient, body: bytes, line: int, column: int) -> None:
    document = check_problem(post(client, body), 400, "malformed_json")
    assert (document["line"], document["column"]) == (line, column)


def test_deep_nesting_is_refused(client: FlaskClient) -> None:
    check_problem(post(client, "[" * 100_000), 400, "malformed_json")
    check_problem(post(client, '{"a":' * 40 + "1" + "}" * 40), 400, "malformed_json")


@pytest.mark.parametrize(
    ("spec", "pointer", "code", "suggestion"),
    [
        ([], "#", "wrong_type", None),
        ({}, "#/kind", "missing", None),
        ({"kind": "clasifier"}, "#/kind", "unknown_kind", "classifier"),
        ({"kind": "gan", "preset": "stabel"}, "#/preset", "unknown_preset", "stable"),
        ({"kind": "classifier", "epochs": "3"}, "#/epochs", "wrong_type", None),
        ({"kind": "classifier", "epochs": 0}, "#/epochs", "out_of_range", None),
        ({"kind": "classifier", "epoch": 3}, "#/epoch", "unknown_field", "epochs"),
        ({"kind": "classifier", "optimizer": {"name": "adma"}}, "#/optimizer/name", "unknown_value", "adam"),
        (
            {"kind": "classifier", "layers": [{"units": 9, "activation": "softmax"}]},
            "#/layers/0/units",
            "wrong_shape",
            "10",
        ),
        ({"kind": "classifier", "dataset": {"name": "minst"}}, "#/dataset/name", "dataset_not_found", "mnist"),
        ({"kind": "classifier", "dataset": {"name": "../etc"}}, "#/dataset/name", "dataset_not_found", None),
        ({"kind": "classifier", "dataset": "minst"}, "#/dataset", "dataset_not_found", "mnist"),
        ({"kind": "classifier", "optimizer": "adma"}, "#/optimizer", "unknown_value", "adam"),
        ({"kind": "GAN"}, "#/kind", "unknown_kind", "gan"),
        ({"kind": "classifier", "learning_rate": 1}, "#/learning_rate", "unknown_field", "optimizer.learning_rate"),
    ],
)
def test_fault_of_a_spec_has_its_pointer_code_and_suggestion(
    client: FlaskClient, spec: Any, pointer: str, code: str, suggestion: str | None
) -> None:
    document = check_problem(client.post("/jobs", json=spec), 422, "invalid_spec")
    fault = document["errors"][0]
    assert (fault["pointer"], fault["code"], fault.get("suggestion")) == (pointer, code, suggestion)
    assert client.get("/jobs").json["data"] == []


def test_all_faults_are_reported_at_once(client: FlaskClient) -> None:
    spec = {"kind": "classifier", "epochs": -1, "learning_rat": 1, "dataset": {"name": "nothing"}, "seed": 1.5}
    document = check_problem(client.post("/jobs", json=spec), 422, "invalid_spec")
    pointers = {fault["pointer"] for fault in document["errors"]}
    assert pointers == {"#/epochs", "#/learning_rat", "#/dataset/name", "#/seed"}


def _write_dataset(folder: Path, images: bytes) -> None:
    folder.mkdir(parents=True)
    labels = bytes([0, 0, 8, 1, 0, 0, 0, 2, 0, 1])
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


VALID_IMAGES = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2]) + bytes(range(8))


@pytest.mark.parametrize("images", [b"", b"\x00\x00\x08\x03\x00", VALID_IMAGES[:14], b"no idx" * 9], ids=repr)
def test_broken_idx_file_is_a_fault_of_the_spec(client: FlaskClient, tmp_path: Path, images: bytes) -> None:
    _write_dataset(tmp_path / "data" / "mine", images)
    answer = client.post("/jobs", json={"kind": "classifier", "dataset": {"name": "mine"}})
    document = check_problem(answer, 422, "invalid_spec")
    assert document["errors"][0]["code"] == "dataset_broken"
    assert "images" in document["errors"][0]["detail"]
    assert str(tmp_path) not in answer.text
    dataset = client.get("/datasets/mine")
    assert dataset.status_code == 200
    assert dataset.json["problem"]
    assert dataset.json["available"] is False


def test_incomplete_dataset_does_not_exist(client: FlaskClient, tmp_path: Path) -> None:
    _write_dataset(tmp_path / "data" / "mine", VALID_IMAGES)
    (tmp_path / "data" / "mine" / "t10k-labels-idx1-ubyte.gz").unlink()
    answer = client.post("/jobs", json={"kind": "classifier", "dataset": {"name": "mine"}})
    assert check_problem(answer, 422, "invalid_spec")["errors"][0]["code"] == "dataset_not_found"


def test_layers_and_batch_size_must_fit_the_dataset(client: FlaskClient, tmp_path: Path) -> None:
    _write_dataset(tmp_path / "data" / "mine", VALID_IMAGES)
    layers = [{"units": 392, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
    spec = {"kind": "classifier", "dataset": {"name": "mine"}, "batch_size": 100, "layers": layers}
    document = check_problem(client.post("/jobs", json=spec), 422, "invalid_spec")
    assert {fault["pointer"] for fault in document["errors"]} == {"#/layers/1/units", "#/batch_size"}


@pytest.mark.parametrize(("kind", "units"), [("classifier", 2), ("gan", 4)])
def test_a_presets_last_layer_fits_the_dataset(client: FlaskClient, tmp_path: Path, kind: str, units: int) -> None:
    _write_dataset(tmp_path / "data" / "mine", VALID_IMAGES)
    answer = client.post("/jobs", json={"kind": kind, "dataset": {"name": "mine"}, "batch_size": 2})
    assert answer.status_code == 201, answer.text
    resolved = answer.json["resolved"]
    layers = resolved["layers"] if kind == "classifier" else resolved["generator"]["layers"]
    assert layers[-1]["units"] == units
    assert answer.json["spec"] == {"kind": kind, "dataset": {"name": "mine"}, "batch_size": 2}


def test_body_over_one_mebibyte_is_refused(client: FlaskClient) -> None:
    check_problem(post(client, b" " * (1024 * 1024 + 1)), 413, "body_too_large")
    check_problem(post(client, b" " * (1024 * 1024)), 400, "malformed_json")


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_other_content_type_is_refused(client: FlaskClient, content_type: str | None) -> None:
    check_problem(post(client, b'{"kind": "gan"}', content_type), 415, "unsupported_media_type")


def test_content_type_may_have_a_charset(client: FlaskClient) -> None:
    assert post(client, b'{"kind": "gan"}', "application/json; charset=utf-8").status_code == 201


def test_wrong_method_names_the_allowed_ones(client: FlaskClient) -> None:
    answer = client.put("/jobs")
    check_problem(answer, 405, "method_not_allowed")
    assert {"GET", "POST"} <= {name.strip() for name in answer.headers["Allow"].split(",")}


@pytest.mark.parametrize("path", ["/nothing", "/jobs/", "/jobs/a/b/c", "/static/../app.py", "/static/none.js"])
def test_unknown_url_is_a_problem(client: FlaskClient, path: str) -> None:
    check_problem(client.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("checkpoints/best", "artifact_not_found"),
        ("checkpoints/99999999999999999999", "artifact_not_found"),
        ("checkpoints/-1", "artifact_not_found"),
        ("checkpoints/%00", "artifact_not_found"),
        ("samples/3.png", "artifact_not_found"),
        ("samples/x.png", "artifact_not_found"),
        ("artifacts/art_01J00000000000000000000000", "artifact_not_found"),
        ("artifacts/%00", "artifact_not_found"),
        ("artifacts/..%2F..%2Fx", "not_found"),
        ("samples.gif", "not_yet"),
        ("plots/curves.png", "not_yet"),
        ("plots/confusion.svg", "not_yet"),
        ("plots/other.png", "not_found"),
        ("plots/curves.pdf", "not_found"),
    ],
)
def test_missing_file_is_a_problem(client: FlaskClient, submit: Submit, path: str, code: str) -> None:
    check_problem(client.get(f"/jobs/{submit(client)}/{path}"), 404, code)


def test_gan_has_no_confusion_matrix(client: FlaskClient, submit: Submit) -> None:
    check_problem(client.get(f"/jobs/{submit(client, kind='gan')}/plots/confusion.png"), 404, "not_found")


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("limit=0", {"limit"}),
        ("limit=101", {"limit"}),
        ("limit=x&foo=1", {"limit", "foo"}),
        ("status=done", {"status"}),
        ("kind=rnn", {"kind"}),
        ("sort=colour", {"sort"}),
        ("q=%00", {"q"}),
        ("parent=job_%00", {"parent"}),
        ("tag=" + "x" * 201, {"tag"}),
    ],
)
def test_invalid_parameter_is_named(client: FlaskClient, query: str, parameters: set[str]) -> None:
    document = check_problem(client.get(f"/jobs?{query}"), 400, "invalid_parameter")
    assert {fault["parameter"] for fault in document["errors"]} == parameters


@pytest.mark.parametrize("cursor", ["x", "%F0%9F%98%80", "WyJhIiwxLCJiIl0", "W10", ""])
def test_invalid_cursor_is_refused(client: FlaskClient, cursor: str) -> None:
    check_problem(client.get(f"/jobs?cursor={cursor}"), 400, "invalid_cursor")


def test_cursor_of_another_sort_order_is_refused(client: FlaskClient, submit: Submit) -> None:
    for _ in range(2):
        submit(client)
    cursor = client.get("/jobs?limit=1&sort=priority").json["next_cursor"]
    check_problem(client.get(f"/jobs?limit=1&cursor={cursor}"), 400, "invalid_cursor")


def test_an_epoch_that_no_job_can_have_is_refused(client: FlaskClient, submit: Submit) -> None:
    answer = client.get(f"/jobs/{submit(client)}/confusion?epoch={10**30}")
    check_problem(answer, 400, "invalid_parameter")


def test_invalid_last_event_id_is_refused(client: FlaskClient, submit: Submit) -> None:
    answer = client.get(f"/jobs/{submit(client)}/stream", headers={"Last-Event-ID": "x"})
    check_problem(answer, 400, "invalid_parameter")


def test_unreachable_database_is_a_temporary_problem(make_app: Callable[..., Flask]) -> None:
    app = make_app("postgresql+psycopg://nobody:secret@127.0.0.1:1/none")
    client = app.test_client()
    for answer in (client.get("/jobs"), client.post("/jobs", json={"kind": "gan"}), client.get("/")):
        check_problem(answer, 503, "database_unavailable")
        assert answer.headers["Retry-After"] == "5"
        assert "secret" not in answer.text
    assert client.get("/healthz").status_code == 200
    readiness = client.get("/readyz")
    assert (readiness.status_code, readiness.json["status"]) == (503, "down")
    assert "secret" not in readiness.text


def test_unexpected_error_shows_no_trace(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*args: Any, **options: Any) -> None:
        raise RuntimeError("the secret is 1234")

    monkeypatch.setattr("service.web.jobs.views.listing.find", explode)
    answer = client.get("/jobs")
    check_problem(answer, 500, "internal")
    assert "1234" not in answer.text


def test_locked_database_is_a_temporary_problem(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_locked(*args: Any, **options: Any) -> None:
        raise OperationalError("INSERT", {}, Exception("database is locked"))

    monkeypatch.setattr("service.application.jobs.submissions.submit", raise_locked)
    check_problem(client.post("/jobs", json={"kind": "gan"}), 503, "database_unavailable")


def test_every_problem_is_explained_in_the_docs(client: FlaskClient) -> None:
    page = client.get("/docs").text
    assert {f"problem-{code}" for code in problem_kinds.KINDS} <= set(re.findall(r'id="([^"]+)"', page))


def test_valid_request_id_is_echoed_and_an_invalid_one_is_replaced(client: FlaskClient) -> None:
    assert client.get("/nothing", headers={"X-Request-Id": "abc-1"}).json["request_id"] == "abc-1"
    for invalid_id in ("a b", "<script>", "x" * 129):
        request_id = client.get("/healthz", headers={"X-Request-Id": invalid_id}).headers["X-Request-Id"]
        assert request_id.startswith("req_")


@pytest.mark.parametrize("path", ["/", "/jobs", "/nothing", "/static/common/app.css", "/openapi.json"])
def test_every_response_has_security_headers(client: FlaskClient, path: str) -> None:
    with client.get(path) as answer:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Frame-Options"] == "DENY"
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_hundred_faults_are_described_and_all_are_counted(client: FlaskClient) -> None:
    body = json.dumps({"kind": "classifier"} | {f"field{number}": 1 for number in range(5000)})
    document = check_problem(post(client, body), 422, "invalid_spec")
    assert (len(document["errors"]), document["error_count"]) == (100, 5000)
    assert document["detail"].startswith("5,000 fields need attention")


def test_a_hundred_faults_of_url_parameters_are_described_and_all_are_counted(client: FlaskClient) -> None:
    response = client.get("/jobs?" + "&".join(f"p{number}=1" for number in range(600)))
    document = check_problem(response, 400, "invalid_parameter")
    assert (len(document["errors"]), document["error_count"]) == (100, 600)


def test_a_document_has_a_bounded_number_of_fields(client: FlaskClient) -> None:
    body = json.dumps({f"field{number}": 1 for number in range(60_000)})
    assert "more than 10,000 fields" in check_problem(post(client, body), 400, "malformed_json")["detail"]


def test_without_a_key_a_request_is_limited_to_four_kibibytes(client: FlaskClient) -> None:
    body = json.dumps({"key": "k" * 5000})
    for content in ({"data": body}, {"input_stream": io.BytesIO(body.encode()), "content_length": None}):
        response = client.post("/session", content_type="application/json", **content)
        assert "4 KiB" in check_problem(response, 413, "body_too_large")["detail"]
