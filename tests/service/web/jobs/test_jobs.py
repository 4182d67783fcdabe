from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.datasets import download
from service.jobs.queries.sorting import SORTS
from service.storage.tables import Job
from service.web.core.core import EXTENSION

Submit = Callable[..., str]

JOB_FIELDS = {
    *("id", "kind", "name", "tags", "owner", "status", "requested", "attempt", "lease", "priority", "spec"),
    *("resolved", "spec_hash", "provenance", "progress", "metrics", "health", "parent_id", "error", "result_digest"),
    *("stopped_early", "created_at", "started_at", "finished_at", "allowed_actions", "urls"),
}


def test_a_job_is_stored_and_returned_with_all_fields(either_app: Flask) -> None:
    client = either_app.test_client()
    spec = {"kind": "classifier", "name": "digits ✓", "tags": ["demo"], "epochs": 3}
    created = client.post("/jobs", json=spec)
    assert created.status_code == 201
    assert created.headers["Location"] == f"/jobs/{created.json['id']}"
    shown = client.get(created.headers["Location"])
    assert shown.status_code == 200
    assert shown.json == created.json
    assert set(created.json) >= JOB_FIELDS
    assert created.json["spec"] == spec
    assert created.json["resolved"]["batch_size"] == 200
    assert created.json["status"] == "queued"
    assert created.json["allowed_actions"] == ["cancel"]
    assert created.json["progress"] == {
        "epoch": 0,
        "epochs": 3,
        "step": 0,
        "steps": 129,
        "fraction": 0.0,
        "eta_seconds": None,
    }
    for name in ("self", "results", "stream", "metrics", "samples", "checkpoints", "artifacts", "page"):
        assert client.get(created.json["urls"][name], buffered=name != "stream").status_code == 200


def test_a_spec_can_name_an_object_instead_of_spelling_it_out(either_app: Flask) -> None:
    client = either_app.test_client()
    spec = {"kind": "classifier", "dataset": "mnist-10k", "optimizer": "adam", "schedule": "cosine"}
    objects = {name: value if name == "kind" else {"name": value} for name, value in spec.items()}
    by_name, by_object = client.post("/jobs", json=spec).json, client.post("/jobs", json=objects).json
    assert by_name["spec"] == spec
    assert by_name["resolved"] == by_object["resolved"]
    assert by_name["resolved"]["dataset"]["name"] == "mnist-10k"
    assert by_name["spec_hash"] == by_object["spec_hash"]


def test_a_running_job_shows_progress_times_and_provenance(client: FlaskClient, worker: Any, submit: Submit) -> None:
    job_id = submit(client, epochs=10)
    worker.claim()
    worker.commit_epoch(1)
    worker.report(400, steps=850)
    job = client.get(f"/jobs/{job_id}").json
    assert job["status"] == "running"
    assert job["progress"] == {
        "epoch": 1,
        "epochs": 10,
        "step": 400,
        "steps": 850,
        "fraction": round(400 / 850, 6),
        "eta_seconds": 9.0,
    }
    assert job["metrics"] == {"train_loss": 1.0, "val_accuracy": 0.9}
    assert job["provenance"] == {"numpy": "2.4", "threads": 1}
    assert job["created_at"] <= job["started_at"]
    assert len(job["created_at"]) == len("2026-01-01T10:00:00.123Z")
    assert job["created_at"].endswith("Z")


def test_a_dry_run_stores_nothing(client: FlaskClient) -> None:
    answer = client.post("/jobs?dry_run=true", json={"kind": "classifier", "epochs": 2})
    assert answer.status_code == 200
    assert answer.json["parameters"] == 784 * 392 + 392 + 392 * 10 + 10
    assert answer.json["steps"] == 86
    assert answer.json["estimated_bytes"] > answer.json["checkpoint_bytes"] > 0
    assert answer.json["estimated_seconds"] > 0
    assert answer.json["estimated_seconds_low"] is None  # shown as "about", without a range
    assert answer.json["estimate_basis"] == "number of operations"
    assert answer.json["resolved"]["epochs"] == 2
    assert client.get("/jobs").json["data"] == []


def test_a_dry_run_estimates_a_range_once_a_similar_job_has_ended(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    submit(client, epochs=1)
    worker.claim()
    worker.commit_epoch(1)
    worker.succeed()
    answer = client.post("/jobs?dry_run=true", json={"kind": "classifier", "epochs": 2}).json
    assert 0 < answer["estimated_seconds_low"] <= answer["estimated_seconds"] <= answer["estimated_seconds_high"]
    assert answer["estimate_basis"] == "1 similar job"


def test_a_dry_run_notes_that_a_dataset_must_be_downloaded(client: FlaskClient, tmp_path: Path) -> None:
    spec = {"kind": "classifier", "dataset": "fashion-mnist"}
    notes = client.post("/jobs?dry_run=true", json=spec).json["notes"]
    source = "fashion-mnist.s3-website.eu-central-1.amazonaws.com"
    assert notes == [f"fashion-mnist is not downloaded yet; the job downloads 31 MB from {source} when it starts."]
    (listed,) = [item for item in client.get("/datasets").json["data"] if item["name"] == "fashion-mnist"]
    assert (listed["state"], listed["available"], listed["problem"]) == ("download", False, None)
    assert listed["download_bytes"] == 26_421_880 + 29_515 + 4_422_102 + 5_148
    assert listed["download_from"][0] == source

    (tmp_path / "data").mkdir(exist_ok=True)
    download.record_failure(tmp_path / "data" / "fashion-mnist", "no route to host")
    (note,) = client.post("/jobs?dry_run=true", json=spec).json["notes"]
    assert "and the last download failed" in note
    assert "no route to host. The job tries to download 31 MB when it starts." in note
    assert client.get("/datasets/fashion-mnist").json["state"] == "unavailable"
    assert client.post("/jobs", json=spec).status_code == 201  # the worker's machine may have it
    assert client.post("/jobs?dry_run=true", json={"kind": "classifier"}).json["notes"] == []


def test_a_repeated_idempotency_key_replays_the_response_and_creates_no_second_job(
    either_app: Flask, make_worker: Any
) -> None:
    client = either_app.test_client()
    headers = {"Idempotency-Key": "once"}
    first = client.post("/jobs", json={"kind": "gan", "epochs": 3}, headers=headers)
    make_worker(either_app).claim()  # the stored response is replayed, not the job's current state
    replay = client.post(
        "/jobs", data='{"epochs": 3,\n "kind": "gan"}', content_type="application/json", headers=headers
    )
    assert "Idempotency-Replayed" not in first.headers
    assert replay.headers["Idempotency-Replayed"] == "true"
    assert (replay.status_code, replay.data, replay.headers["Location"]) == (201, first.data, first.headers["Location"])
    assert len(client.get("/jobs").json["data"]) == 1


def test_a_response_is_replayed_even_if_the_dataset_has_been_deleted(
    make_app: Any, sqlite_url: str, tmp_path: Path
) -> None:
    bundled = files("service") / "data" / "mnist-10k"
    shutil.copytree(str(bundled), tmp_path / "data" / "mine")
    client = make_app(sqlite_url).test_client()
    request = {"json": {"kind": "classifier", "dataset": {"name": "mine"}}, "headers": {"Idempotency-Key": "once"}}
    first = client.post("/jobs", **request)
    assert first.status_code == 201
    shutil.rmtree(tmp_path / "data" / "mine")
    replayed = client.post("/jobs", **request)
    assert (replayed.status_code, replayed.data) == (201, first.data)
    assert replayed.headers["Idempotency-Replayed"] == "true"


def test_a_rejected_spec_does_not_use_up_its_idempotency_key(client: FlaskClient) -> None:
    headers = {"Idempotency-Key": "once"}
    assert client.post("/jobs", json={"kind": "classifier", "epochs": 0}, headers=headers).status_code == 422
    assert client.post("/jobs", json={"kind": "classifier"}, headers=headers).status_code == 201


def test_twenty_concurrent_posts_with_one_idempotency_key_create_one_job(either_app: Flask) -> None:
    start = threading.Barrier(20)

    def post(_: int) -> tuple[int, bytes, bool]:
        start.wait()
        answer = either_app.test_client().post(
            "/jobs", json={"kind": "classifier"}, headers={"Idempotency-Key": "once"}
        )
        return answer.status_code, answer.data, "Idempotency-Replayed" in answer.headers

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(post, range(20)))
    assert {status for status, _, _ in answers} == {201}
    assert len({body for _, body, _ in answers}) == 1
    assert sorted(replayed for _, _, replayed in answers) == [False] + [True] * 19
    assert len(either_app.test_client().get("/jobs").json["data"]) == 1


def test_the_list_is_newest_first_and_omits_the_long_fields(client: FlaskClient, submit: Submit) -> None:
    ids = [submit(client) for _ in range(3)]
    listed = client.get("/jobs").json
    assert [job["id"] for job in listed["data"]] == ids[::-1]
    assert set(listed["data"][0]) >= JOB_FIELDS - {"spec", "resolved", "provenance"}
    assert not {"spec", "resolved", "provenance"} & set(listed["data"][0])
    assert (listed["has_more"], listed["next_cursor"]) == (False, None)


def test_the_list_can_be_filtered_and_sorted(either_app: Flask, submit: Submit) -> None:
    client = either_app.test_client()
    plain = submit(client, priority=1)
    tagged = submit(client, tags=["demo", "two"], name="100%_Sure", priority=9)
    gan = submit(client, kind="gan", priority=9)
    client.post(f"/jobs/{gan}/cancel")

    def ids(query: str) -> list[str]:
        return [job["id"] for job in client.get(f"/jobs?{query}").json["data"]]

    assert ids("status=queued") == [tagged, plain]
    assert ids("status=queued,cancelled") == ids("status=queued&status=cancelled") == [gan, tagged, plain]
    assert ids("status=running") == []
    assert ids("kind=gan") == [gan]
    assert ids("tag=demo") == [tagged]
    assert ids("q=%25_SURE") == [tagged]
    assert ids("q=" + plain[-8:].lower()) == [plain]
    assert ids("sort=priority") == [plain, tagged, gan]
    assert ids("sort=created_at&limit=1") == [plain]


def test_the_next_page_is_linked_with_the_same_filter(client: FlaskClient, submit: Submit) -> None:
    ids = [submit(client, tags=["a b"]) for _ in range(5)]
    submit(client)
    listed: list[str] = []
    address: str | None = "/jobs?tag=a+b&limit=2"
    while address:
        answer = client.get(address)
        listed += [job["id"] for job in answer.json["data"]]
        link = answer.headers.get("Link")
        assert (link is not None) == answer.json["has_more"]
        address = link.partition(">")[0].lstrip("<") if link else None
    assert listed == ids[::-1]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    limit=st.integers(1, 4),
    sort=st.sampled_from(SORTS),
    priorities=st.lists(st.integers(0, 2), min_size=20, max_size=20),
)
def test_pagination_repeats_and_misses_no_job_while_others_arrive(
    app: Flask, submit: Submit, sizes: list[int], limit: int, sort: str, priorities: list[int]
) -> None:
    client = app.test_client()
    with app.extensions[EXTENSION].database.write() as session:
        session.query(Job).delete()
    priority_values = iter(priorities)
    initial_ids = {submit(client, priority=next(priority_values)) for _ in range(4)}
    listed: list[str] = []
    cursor = ""
    arrivals = iter(sizes)
    while True:
        page = client.get(f"/jobs?limit={limit}&sort={sort}{cursor}").json
        listed += [job["id"] for job in page["data"]]
        if not page["has_more"] or len(listed) > 40:
            break
        cursor = f"&cursor={page['next_cursor']}"
        for _ in range(min(next(arrivals, 0), 3)):
            submit(client, priority=next(priority_values, 1))
    assert len(listed) == len(set(listed)), "a job came twice"
    assert initial_ids <= set(listed), "a job that was there from the start is missing"


def test_cancelling_a_queued_job_ends_it(client: FlaskClient, submit: Submit) -> None:
    job_id = submit(client)
    answer = client.post(f"/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json["status"], answer.json["allowed_actions"]) == (
        202,
        "cancelled",
        ["delete"],
    )


def test_pausing_or_cancelling_a_running_job_is_a_request(client: FlaskClient, worker: Any, submit: Submit) -> None:
    job_id = submit(client)
    worker.claim()
    paused = client.post(f"/jobs/{job_id}/pause")
    assert (paused.status_code, paused.json["status"], paused.json["requested"]) == (202, "running", "pause")
    assert paused.json["allowed_actions"] == ["cancel"]
    cancelled = client.post(f"/jobs/{job_id}/cancel")
    assert (cancelled.status_code, cancelled.json["requested"]) == (202, "cancel")


def test_a_failed_job_can_be_retried(client: FlaskClient, worker: Any, submit: Submit) -> None:
    job_id = submit(client)
    worker.claim()
    worker.fail()
    assert client.get(f"/jobs/{job_id}").json["error"] == {"code": "internal", "message": "it went wrong"}
    answer = client.post(f"/jobs/{job_id}/retry")
    assert (answer.status_code, answer.json["status"], answer.json["attempt"]) == (202, "queued", 2)


def test_a_diverged_job_cannot_be_retried(client: FlaskClient, worker: Any, submit: Submit) -> None:
    job_id = submit(client)
    worker.claim()
    worker.fail("diverged")
    answer = client.post(f"/jobs/{job_id}/retry")
    assert (answer.status_code, answer.json["code"]) == (409, "illegal_transition")
    assert answer.json["allowed_actions"] == ["delete"]


@pytest.mark.parametrize("action", ["pause", "resume", "retry"])
def test_an_illegal_action_is_rejected_with_the_legal_ones(client: FlaskClient, submit: Submit, action: str) -> None:
    answer = client.post(f"/jobs/{submit(client)}/{action}")
    assert answer.status_code == 409
    assert (answer.json["code"], answer.json["allowed_actions"]) == ("illegal_transition", ["cancel"])


def test_delete_removes_rows_and_files(either_app: Flask, make_worker: Any, submit: Submit) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    job_id = submit(client, tags=["a"])
    assert client.delete(f"/jobs/{job_id}").status_code == 409
    worker.claim()
    worker.commit_epoch(1)
    worker.succeed()
    assert client.get(f"/jobs/{job_id}/plots/curves.png").status_code == 200
    folder = worker.artifacts.root / job_id
    assert folder.exists()
    assert client.delete(f"/jobs/{job_id}").status_code == 204
    assert not folder.exists()
    for end in ("", "/results", "/events", "/checkpoints/best"):
        assert client.get(f"/jobs/{job_id}{end}").status_code == 404
    assert client.delete(f"/jobs/{job_id}").status_code == 404


def test_an_unchanged_job_is_not_sent_again(client: FlaskClient, submit: Submit) -> None:
    address = f"/jobs/{submit(client)}"
    etag = client.get(address).headers["ETag"]
    unchanged = client.get(address, headers={"If-None-Match": etag})
    assert (unchanged.status_code, unchanged.data, unchanged.headers["ETag"]) == (304, b"", etag)
    client.post(f"{address}/cancel")
    changed = client.get(address, headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json["status"]) == (200, "cancelled")


def test_a_long_poll_returns_when_the_job_changes(either_app: Flask, submit: Submit) -> None:
    client = either_app.test_client()
    address = f"/jobs/{submit(client)}"
    etag = client.get(address).headers["ETag"]
    timer = threading.Timer(0.8, lambda: either_app.test_client().post(f"{address}/cancel"))
    started = time.monotonic()
    timer.start()
    answer = client.get(address, headers={"If-None-Match": etag, "Prefer": "wait=30"})
    timer.join()
    assert (answer.status_code, answer.json["status"]) == (200, "cancelled")
    assert time.monotonic() - started < 30, "it waited for its whole time"
    assert answer.headers["Preference-Applied"] == "wait=30"


def test_a_long_poll_ends_after_its_wait_time(client: FlaskClient, submit: Submit) -> None:
    address = f"/jobs/{submit(client)}"
    etag = client.get(address).headers["ETag"]
    started = time.monotonic()
    assert client.get(address, headers={"If-None-Match": etag, "Prefer": "respond-async, wait=1"}).status_code == 304
    assert time.monotonic() - started > 0.9


def test_a_job_that_stopped_early_has_succeeded_and_reports_why(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    job_id = submit(client)
    assert client.get(f"/jobs/{job_id}").json["stopped_early"] is None
    worker.claim()
    worker.commit_epoch(1)
    reason = {"metric": "val_loss", "best": 0.25, "best_epoch": 1, "patience": 5}
    worker.succeed(stopped_early=reason)
    job = client.get(f"/jobs/{job_id}").json
    assert (job["status"], job["stopped_early"]) == ("succeeded", reason)
    assert (job["progress"]["fraction"], job["progress"]["eta_seconds"]) == (1.0, None)
    assert (job["progress"]["epoch"], job["progress"]["step"]) == (1, job["progress"]["steps"])
    assert b"val loss was best in epoch 1" in client.get(f"/ui/jobs/{job_id}").data
