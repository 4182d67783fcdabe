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
    """A job of Ann's that has ended, with everything that a job can have."""
    with stack.client("ann") as ann:
        made = ann.post("/jobs", json=SPEC, headers={"Idempotency-Key": "anns"}).json()
        etag = ""
        while made["status"] not in ("succeeded", "failed"):
            answer = ann.get(f"/jobs/{made['id']}", headers={"Prefer": "wait=20", "If-None-Match": etag})
            etag = answer.headers["ETag"]
            made = answer.json() if answer.status_code == 200 else made
        assert made["status"] == "succeeded"
        return {**made, "artifact_id": ann.get(made["urls"]["artifacts"]).json()["data"][0]["id"]}


def address(path: str, job: dict[str, Any]) -> str:
    which = next((value for name, value in WHICH.items() if f"/{name}/" in path), "latest")
    values = {"job_id": job["id"], "artifact_id": job["artifact_id"], "which": which, "form": "png"}
    values["target"] = "onnx"
    query = "?metric=train_loss&above=0" if path.endswith("/bisection") else ""
    return re.sub(r"{(\w+)}", lambda found: values.get(found[1], "1"), path) + query


def test_a_job_of_another_owner_is_nowhere(stack: Stack, job: dict[str, Any]) -> None:
    document = httpx.get(f"{stack.url}/openapi.json", headers=stack.client("bob").headers, trust_env=False).json()
    tried = set()
    with stack.client("ann") as ann, stack.client("bob") as bob, stack.client("operator") as operator:
        for path, methods in document["paths"].items():
            if "{job_id}" not in path:
                continue
            for method in methods:
                for stranger in (bob, operator):
                    body = BODIES.get(path, {}) if method in ("post", "patch") else None
                    answer = stranger.request(method, address(path, job), json=body)
                    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found"), (method, path)
                    assert "anns-own" not in answer.text
                tried.add((method, path))
            if "get" in methods:
                with ann.stream("GET", address(path, job)) as own:
                    # The ids are right, and the file is there; only columns of a table have an importance.
                    assert own.status_code == (404 if "importance" in path else 200), path
        assert ann.get(f"/jobs/{job['id']}").json()["status"] == "succeeded"
    assert len(tried) > 25


def test_lists_streams_and_idempotency_keys_show_nothing_of_another_owner(stack: Stack, job: dict[str, Any]) -> None:
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
                hers = ann.post("/jobs", json=SPEC).json()["id"]
                his = bob.post("/jobs", json=SPEC | {"name": "bobs"}).json()["id"]
            received = []
            for line in lines:
                received.append(line)
                if his in line:
                    break
            assert not any(hers in line for line in received)
        mine = bob.post("/jobs", json=SPEC, headers={"Idempotency-Key": "anns"})
        assert mine.status_code == 201
        assert mine.json()["id"] != job["id"]
        assert "Idempotency-Replayed" not in mine.headers
        fork = bob.post(f"/jobs/{mine.json()['id']}/fork", json={"checkpoint": job["artifact_id"]})
        assert fork.status_code in (409, 422)
        for found in bob.get("/jobs?limit=100").json()["data"]:
            bob.post(f"/jobs/{found['id']}/cancel")
    with stack.client("ann") as ann:
        ann.post(f"/jobs/{hers}/cancel")
        cursor = ann.get("/jobs?limit=1").json()["next_cursor"]
    with stack.client("bob") as bob:
        assert job["id"] not in bob.get(f"/jobs?limit=100&cursor={cursor}").text


def test_a_body_cannot_say_whose_it_is(stack: Stack, job: dict[str, Any]) -> None:
    with stack.client("bob") as bob:
        for field in ("owner", "id", "status", "lease", "lease_owner", "result_digest", "parent_id"):
            answer = bob.post("/jobs", json=SPEC | {field: "ann"})
            assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"#/{field}")
    with stack.client("ann") as ann:
        for field in ("owner", "status", "lease", "result_digest"):
            assert ann.patch(f"/jobs/{job['id']}", json={field: "bob"}).status_code == 422


READING = {"/session", "/jobs/{job_id}/predict", "/jobs/{job_id}/generate"}
"""What is asked for by POST and changes nothing."""


def test_who_may_only_read_changes_nothing(stack: Stack, job: dict[str, Any]) -> None:
    document = httpx.get(f"{stack.url}/openapi.json", headers=stack.client("bob").headers, trust_env=False).json()
    tried = 0
    with stack.client("reader") as reader:
        assert reader.get(f"/jobs/{job['id']}").status_code == 200
        for path, methods in document["paths"].items():
            for method in set(methods) - {"get"}:
                if path in READING:
                    continue
                answer = reader.request(method, address(path, job), json={})
                assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing"), (method, path)
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
def test_no_path_leads_out(stack: Stack, job: dict[str, Any], path: str) -> None:
    headers = [("Host", "localhost"), ("Authorization", f"Bearer {stack.keys['ann']}")]
    status, body = stack.raw("GET", path.replace("{id}", job["id"]), headers)
    assert status in (404, 308, 301)
    assert b"root:" not in body
    assert b"SQLite" not in body
    assert b"import" not in body


def test_a_link_in_the_artifact_folder_leads_nowhere(stack: Stack, job: dict[str, Any]) -> None:
    with stack.client("ann") as ann:
        url = f"/jobs/{job['id']}/checkpoints/best"
        whole = ann.get(url).content
        folder = stack.home / "artifacts" / job["id"] / "checkpoint"
        (aside := folder.with_name("elsewhere")).mkdir()
        for file in folder.iterdir():
            (aside / file.name).write_bytes(file.read_bytes())
        kept = folder.with_name("kept")
        folder.rename(kept)
        folder.symlink_to(aside)
        try:
            answer = ann.get(url)
            assert (answer.status_code, answer.json()["code"]) == (500, "artifact_damaged")
        finally:
            folder.unlink()
            kept.rename(folder)
        assert ann.get(url).content == whole
