"""Every route, requested with a valid key and the ids of another owner's objects."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from tests.security.conftest import Stack

SPEC = {"kind": "classifier", "epochs": 1, "layers": [{"units": 10, "activation": "softmax"}], "name": "anns-own"}
BODIES = {"/jobs/{job_id}": {"name": "mine"}, "/jobs/{job_id}/predict": {"images": [[[0.0] * 28] * 28]}}
WHICH = {"plots": "curves", "samples": "1", "checkpoints": "best"}


@pytest.fixture(scope="module")
def job(stack: Stack) -> dict[str, Any]:
    """A finished job of Ann's, with everything that a job can have."""
    with stack.client("ann") as ann:
        job = ann.post("/jobs", json=SPEC, headers={"Idempotency-Key": "anns"}).json()
        etag = ""
        while job["status"] not in ("succeeded", "failed"):
            response = ann.get(f"/jobs/{job['id']}", headers={"Prefer": "wait=20", "If-None-Match": etag})
            etag = response.headers["ETag"]
            job = response.json() if response.status_code == 200 else job
        assert job["status"] == "succeeded"
        return {**job, "artifact_id": ann.get(job["urls"]["artifacts"]).json()["data"][0]["id"]}


def url_of(path: str, job: dict[str, Any]) -> str:
    which = next((value for name, value in WHICH.items() if f"/{name}/" in path), "latest")
    values = {"job_id": job["id"], "artifact_id": job["artifact_id"], "which": which, "form": "png"}
    values["target"] = "onnx"
    query = "?metric=train_loss&above=0" if path.endswith("/bisection") else ""
    return re.sub(r"{(\w+)}", lambda match: values.get(match[1], "1"), path) + query


@pytest.mark.nightly
def test_another_owners_job_is_not_found_on_any_route(stack: Stack, job: dict[str, Any]) -> None:
    document = httpx.get(f"{stack.url}/openapi.json", headers=stack.client("bob").headers, trust_env=False).json()
    tried = set()
    with stack.client("ann") as ann, stack.client("bob") as bob, stack.client("operator") as operator:
        for path, methods in document["paths"].items():
            if "{job_id}" not in path:
                continue
            for method in methods:
                for stranger in (bob, operator):
                    body = BODIES.get(path, {}) if method in ("post", "patch") else None
                    response = stranger.request(method, url_of(path, job), json=body)
                    assert (response.status_code, response.json()["code"]) == (404, "job_not_found"), (method, path)
                    assert "anns-own" not in response.text
                tried.add((method, path))
            if "get" in methods:
                with ann.stream("GET", url_of(path, job)) as own_response:
                    # The ids are valid and the files exist; only jobs on tables have column importances.
                    assert own_response.status_code == (404 if "importance" in path else 200), path
        assert ann.get(f"/jobs/{job['id']}").json()["status"] == "succeeded"
    assert len(tried) > 25


def test_lists_streams_and_idempotency_keys_reveal_nothing_of_another_owner(stack: Stack, job: dict[str, Any]) -> None:
    with stack.client("bob") as bob:
        for query in ("", "?q=anns", "?status=succeeded", f"?q={job['id']}", "?sort=created_at&limit=100"):
            assert job["id"] not in bob.get(f"/jobs{query}").text
        assert "anns-own" not in bob.get("/").text
        assert bob.get(f"/stream?jobs={job['id']}").json()["code"] == "job_not_found"
        with bob.stream("GET", "/stream") as stream:
            lines = stream.iter_lines()
            snapshot = next(line for line in lines if line.startswith("data:"))
            assert job["id"] not in snapshot
            with stack.client("ann") as ann:
                anns_id = ann.post("/jobs", json=SPEC).json()["id"]
                bobs_id = bob.post("/jobs", json=SPEC | {"name": "bobs"}).json()["id"]
            received = []
            for line in lines:
                received.append(line)
                if bobs_id in line:
                    break
            assert not any(anns_id in line for line in received)
        same_key = bob.post("/jobs", json=SPEC, headers={"Idempotency-Key": "anns"})
        assert same_key.status_code == 201
        assert same_key.json()["id"] != job["id"]
        assert "Idempotency-Replayed" not in same_key.headers
        fork = bob.post(f"/jobs/{same_key.json()['id']}/fork", json={"checkpoint": job["artifact_id"]})
        assert fork.status_code in (409, 422)
        for item in bob.get("/jobs?limit=100").json()["data"]:
            bob.post(f"/jobs/{item['id']}/cancel")
    with stack.client("ann") as ann:
        ann.post(f"/jobs/{anns_id}/cancel")
        cursor = ann.get("/jobs?limit=1").json()["next_cursor"]
    with stack.client("bob") as bob:
        assert job["id"] not in bob.get(f"/jobs?limit=100&cursor={cursor}").text


def test_a_body_cannot_set_the_owner_or_other_server_fields(stack: Stack, job: dict[str, Any]) -> None:
    with stack.client("bob") as bob:
        for field in ("owner", "id", "status", "lease", "lease_owner", "result_digest", "parent_id"):
            response = bob.post("/jobs", json=SPEC | {field: "ann"})
            assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, f"#/{field}")
    with stack.client("ann") as ann:
        for field in ("owner", "status", "lease", "result_digest"):
            assert ann.patch(f"/jobs/{job['id']}", json={field: "bob"}).status_code == 422


READ_ONLY_POSTS = {"/session", "/jobs/{job_id}/predict", "/jobs/{job_id}/generate"}
"""Routes that change nothing although their method is POST."""


@pytest.mark.nightly
def test_a_read_scope_key_cannot_change_anything(stack: Stack, job: dict[str, Any]) -> None:
    document = httpx.get(f"{stack.url}/openapi.json", headers=stack.client("bob").headers, trust_env=False).json()
    tried = 0
    with stack.client("reader") as reader:
        assert reader.get(f"/jobs/{job['id']}").status_code == 200
        for path, methods in document["paths"].items():
            for method in set(methods) - {"get"}:
                if path in READ_ONLY_POSTS:
                    continue
                response = reader.request(method, url_of(path, job), json={})
                assert (response.status_code, response.json()["code"]) == (403, "scope_missing"), (method, path)
                tried += 1
        assert reader.get("/audit").json()["needed"] == "admin"
    assert tried > 10


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/{id}/artifacts/../../../../etc/passwd",
        "/jobs/{id}/artifacts/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/jobs/{id}/artifacts/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/jobs/{id}/artifacts/..%252f..%252fetc%252fpasswd",
        "/jobs/{id}/artifacts//etc/passwd",
        "/jobs/{id}/artifacts/%00",
        "/jobs/{id}/artifacts/file:%2f%2f%2fetc%2fpasswd",
        "/jobs/{id}/artifacts/a%23/../../tapeline.db",
        "/jobs/{id}/checkpoints/..%5c..%5ctapeline.db",
        "/jobs/{id}/checkpoints/%2e%2e",
        "/jobs/{id}/samples/..%2f1.png",
        "/jobs/%2e%2e/artifacts",
        "/jobs/..%2f..%2fdata/results",
        "/static/..%2f..%2f..%2fcontract%2fkeys.py",
        "/static/%2e%2e/guard.py",
        "/static//etc/passwd",
        "/datasets/..%2f..%2fhome",
        "/datasets/%2fetc/preview.png",
    ],
)
def test_no_path_traversal_reads_another_file(stack: Stack, job: dict[str, Any], path: str) -> None:
    headers = [("Host", "localhost"), ("Authorization", f"Bearer {stack.keys['ann']}")]
    status, body = stack.raw("GET", path.replace("{id}", job["id"]), headers)
    assert status in (404, 308, 301)
    assert b"root:" not in body
    assert b"SQLite" not in body
    assert b"import" not in body


def test_a_symlink_in_the_artifact_folder_is_not_followed(stack: Stack, job: dict[str, Any]) -> None:
    with stack.client("ann") as ann:
        url = f"/jobs/{job['id']}/checkpoints/best"
        content = ann.get(url).content
        folder = stack.home / "artifacts" / job["id"] / "checkpoint"
        (outside := folder.with_name("elsewhere")).mkdir()
        for file in folder.iterdir():
            (outside / file.name).write_bytes(file.read_bytes())
        original = folder.with_name("kept")
        folder.rename(original)
        folder.symlink_to(outside)
        try:
            response = ann.get(url)
            assert (response.status_code, response.json()["code"]) == (500, "artifact_damaged")
        finally:
            folder.unlink()
            original.rename(folder)
        assert ann.get(url).content == content
