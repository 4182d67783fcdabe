from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from service.access import storage_quota
from service.access.storage_quota import StoredBytes
from service.errors import AdmissionRefused
from service.web.core import quotas
from service.web.core.core import EXTENSION, Core
from tests.service.web.core.quota_clients import SPEC, MakeApp, check_refusal, client_of, keyed

KEEPS_ALL = SPEC | {"epochs": 4, "checkpoint": {"keep_last": 4}, "samples": {"count": 1}}


def expected_bytes(client: FlaskClient, **spec: Any) -> int:
    plan = client.post("/jobs?dry_run=true", json=KEEPS_ALL | spec).json
    assert plan["expected_bytes"] > 4 * plan["checkpoint_bytes"]
    return int(plan["expected_bytes"])


def check_storage_refusal(answer: Any) -> None:
    assert check_refusal(answer, "quota_exceeded") > 30, "clients do not wait this long"
    assert "(TAPELINE_OWNER_ARTIFACTS); delete jobs, keep fewer checkpoints" in answer.json["detail"]


@pytest.fixture
def _count_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "_COUNT_TTL_S", 0.0)


@pytest.mark.usefixtures("_count_each_time")
def test_jobs_whose_files_do_not_fit_into_the_quota_are_refused(
    make_app: MakeApp, make_worker: Callable[[Flask], Any], migrated_url: str
) -> None:
    size = expected_bytes(client_of(keyed(make_app, migrated_url)))
    app = keyed(make_app, migrated_url, artifacts=2 * size + 40_000)
    ann, bob, worker = client_of(app), client_of(app, "bob"), make_worker(app)
    assert ann.get("/limits").json["owner"]["artifact_bytes"] == 2 * size + 40_000
    headers = {"Idempotency-Key": "one"}
    first = ann.post("/jobs", json=KEEPS_ALL, headers=headers)
    second = ann.post("/jobs", json=KEEPS_ALL)
    assert (first.status_code, second.status_code) == (201, 201)
    check_storage_refusal(ann.post("/jobs", json=KEEPS_ALL))  # both are queued, and expected to take the space
    assert ann.post("/jobs", json=KEEPS_ALL, headers=headers).json == first.json
    assert ann.post("/jobs?dry_run=true", json=KEEPS_ALL).status_code == 200
    assert bob.post("/jobs", json=KEEPS_ALL).status_code == 201
    worker.claim()
    worker.commit_epoch(1, checkpoint=b"x" * size)
    worker.succeed()
    check_storage_refusal(ann.post("/jobs", json=KEEPS_ALL))  # one is stored now, the other one is still queued
    [item] = ann.get("/usage").json["data"]
    assert size < item["artifact_bytes"] < size + 20_000
    assert item["expected_bytes"] == size
    assert item["artifact_bytes_left"] == 2 * size + 40_000 - item["artifact_bytes"] - size
    page = ann.get("/ui/usage", headers={"Accept": "text/html"}).text
    assert "Job files left" in page
    assert ann.delete(f"/jobs/{first.json['id']}").status_code == 204
    assert ann.post("/jobs", json=KEEPS_ALL).status_code == 201


@pytest.mark.usefixtures("_count_each_time")
def test_everything_that_adds_jobs_is_refused_when_the_quota_of_files_is_exhausted(
    make_app: MakeApp, make_worker: Callable[[Flask], Any], sqlite_url: str
) -> None:
    plenty = keyed(make_app, sqlite_url)
    client, worker = client_of(plenty), make_worker(plenty)
    jobs = []
    for seed in (0, 1):
        jobs.append(client.post("/jobs", json=KEEPS_ALL | {"seed": seed}).json["id"])
        worker.claim()
        for epoch in range(1, 5):
            worker.commit_epoch(epoch, keep_last=4, metrics={"train_loss": epoch + seed})
        worker.succeed()
    [item] = client.get("/usage").json["data"]
    assert (item["artifact_bytes_left"], item["expected_bytes"]) == (None, 0)
    ann = client_of(keyed(make_app, sqlite_url, artifacts=item["artifact_bytes"] + 10_000))
    sweep = {"base": KEEPS_ALL, "seeds": [0, 1], "space": {"/optimizer/learning_rate": {"choice": [0.1, 0.2, 0.3]}}}
    for path, body in {
        "/jobs": KEEPS_ALL,
        f"/jobs/{jobs[0]}/fork": {"overrides": {"epochs": 9}},
        f"/jobs/{jobs[0]}/reproduce": {},
        "/sweeps": sweep,
    }.items():
        check_storage_refusal(ann.post(path, json=body))
    assert ann.post("/sweeps?dry_run=true", json=sweep).json["expected_bytes"] == 6 * expected_bytes(ann)
    folds = {"name": "mnist-10k", "folds": 3}
    check_storage_refusal(ann.post("/jobs", json=KEEPS_ALL | {"dataset": folds}))
    assert len(ann.get("/jobs").json["data"]) == 2
    answer = ann.post("/differences", json={"a": jobs[0], "b": jobs[1]})
    assert answer.status_code == 201, "an investigation stores no files"


def test_threads_that_count_at_the_same_time_do_not_each_admit_up_to_the_quota(
    make_app: MakeApp, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    core: Core = keyed(make_app, sqlite_url, artifacts=100).extensions[EXTENSION]
    all_have_counted, read, admitted = threading.Barrier(4), storage_quota.read, list[int]()

    def read_together(session: Session, owner: str) -> StoredBytes:
        stored = read(session, owner)
        all_have_counted.wait()
        return stored

    monkeypatch.setattr(storage_quota, "read", read_together)

    def submit() -> None:
        with suppress(AdmissionRefused):
            core.quotas.new_jobs("ann", 1, 40)
            admitted.append(40)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == 80


def test_files_that_a_stale_count_admitted_are_refused_when_their_job_is_stored(
    make_app: MakeApp, make_worker: Callable[[Flask], Any], migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = keyed(make_app, migrated_url, artifacts=25_000)
    core: Core = app.extensions[EXTENSION]
    monkeypatch.setattr(core.quotas, "new_jobs", lambda *_: None)
    ann, worker = client_of(app), make_worker(app)
    parent = ann.post("/jobs", json=KEEPS_ALL).json["id"]
    worker.claim()
    worker.commit_epoch(1, checkpoint=bytes(10_000), sample=b"x")
    fork = {"overrides": {"epochs": 9}}
    assert ann.post(f"/jobs/{parent}/fork", json=fork).status_code == 201
    answer = ann.post(f"/jobs/{parent}/fork", json=fork)
    check_refusal(answer, "quota_exceeded")
    assert "ann's jobs take 20,001 of 25,000 bytes" in answer.json["detail"]
    assert len(list(core.settings.artifacts.glob("job_*"))) == len(ann.get("/jobs").json["data"]) == 2
