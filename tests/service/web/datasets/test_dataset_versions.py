"""Jobs keep the dataset version that they were submitted with. The tests train as a child process does."""

from __future__ import annotations

import io
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.application.datasets import DatasetUploads
from service.datasets.formats.idx import write_idx
from service.jobs import leases
from service.jobs.queries import lookup
from service.maintenance.retention import Policy
from service.storage.tables import Upload
from service.web.core.core import EXTENSION, Core, provided
from tests.faults.conftest import NoSupervisor
from tests.service.web.conftest import MakeApp
from workers.scheduler import delete_expired_data
from workers.training import limits, run

SMALL: dict[str, Any] = {
    "kind": "classifier",
    "epochs": 1,
    "batch_size": 10,
    "layers": [{"units": 8, "activation": "relu"}, {"units": 4, "activation": "softmax"}],
    "dataset": {"name": "mine"},
}


def archive(rows: int = 6, classes: int = 4, seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    buffer = io.BytesIO()
    labels = (np.arange(60) % classes).astype(np.uint8)
    np.savez(buffer, images=rng.integers(0, 256, (60, rows, 5)).astype(np.uint8), labels=labels)
    return buffer.getvalue()


def send(client: FlaskClient, data: bytes, name: str = "mine") -> Any:
    answer = client.post("/datasets", data={"name": name, "archive": (io.BytesIO(data), "a.npz")})
    assert answer.status_code == 201, answer.text
    return answer.json


def submit(client: FlaskClient, **changes: Any) -> str:
    answer = client.post("/jobs", json=SMALL | changes)
    assert answer.status_code == 201, answer.text
    return str(answer.json["id"])


def train(app: Flask, job_id: str) -> Any:
    """Train this job, which must be the only queued one, as a child process does."""
    core: Core = app.extensions[EXTENSION]
    claim = leases.claim(core.database, "test", 600.0)
    assert claim is not None
    assert claim.job_id == job_id
    try:
        run.train(core.settings, claim, NoSupervisor(core.database))
    finally:
        limits.lift_memory_limit()
    with core.database.read() as session:
        return lookup.get(session, job_id)


def delete_expired(app: Flask) -> list[str]:
    """Delete expired data, and return the names of the remaining upload folders."""
    core: Core = app.extensions[EXTENSION]
    delete_expired_data(core.database, provided(DatasetUploads, app).files, Policy())
    return sorted(path.name for path in (core.settings.artifacts / "datasets").iterdir())


@pytest.fixture
def app(make_app: MakeApp, migrated_url: str) -> Flask:
    return make_app(migrated_url)


def test_a_name_stands_for_its_newest_version_and_each_version_has_a_name(app: Flask, client: FlaskClient) -> None:
    first, second = send(client, archive(seed=1)), send(client, archive(seed=2))
    assert first["version"] == f"mine@{first['sha256'].removeprefix('sha256:')[:12]}"
    assert client.get("/datasets/mine").json["sha256"] == second["sha256"]
    assert client.get(f"/datasets/{first['version'][:-4]}").json["sha256"] == first["sha256"]
    (listed,) = [item for item in client.get("/datasets").json["data"] if item["uploaded"]]
    assert (listed["name"], listed["versions"]) == ("mine", [second["version"], first["version"]])
    assert client.get("/datasets/mine@").status_code == 404
    assert client.get("/datasets/mine@%25%25%25%25%25%25").status_code == 404
    older = submit(client, dataset=first["version"])
    assert client.get(f"/jobs/{older}").json["resolved"]["dataset"]["name"] == first["version"]
    assert train(app, older).provenance["dataset"] == first["sha256"]
    newest = submit(client)
    assert train(app, newest).provenance["dataset"] == second["sha256"]


def test_a_job_keeps_its_data_when_the_dataset_is_replaced_or_deleted(app: Flask, client: FlaskClient) -> None:
    first = send(client, archive(seed=1))
    job_id, other_id = submit(client), submit(client, seed=9)
    second = send(client, archive(rows=9, classes=3, seed=2))
    job, _ = train(app, job_id), train(app, other_id)
    assert (job.status, job.dataset_sha256) == ("succeeded", first["sha256"])
    mistakes = client.get(f"/jobs/{job_id}/mistakes").json
    assert client.delete("/datasets/mine").status_code == 204
    assert client.get("/datasets/mine").status_code == 404
    assert client.post("/jobs", json=SMALL).json["errors"][0]["code"] == "dataset_not_found"
    assert client.get(f"/jobs/{job_id}/mistakes").json == mistakes
    image = np.zeros((6, 5), int).tolist()
    assert client.post(f"/jobs/{job_id}/predict", json={"images": [image]}).status_code == 200
    # No job needs the second version; the first is deleted with the last job that was trained on it.
    reproduction = client.post(f"/jobs/{job_id}/reproduce").json["id"]
    assert len(delete_expired(app)) == 1
    assert train(app, reproduction).reproduction["match"] is True
    fork = client.post(f"/jobs/{job_id}/fork", json={"overrides": {"epochs": 2}}).json["id"]
    assert train(app, fork).provenance["dataset"] == first["sha256"]
    investigation = client.post("/differences", json={"a": job_id, "b": other_id})
    assert investigation.status_code == 201, investigation.text
    assert train(app, investigation.json["id"]).investigation["sentence"]
    for job_to_delete in (investigation.json["id"], other_id):
        assert client.delete(f"/jobs/{job_to_delete}").status_code == 204
    assert client.delete(f"/jobs/{reproduction}").status_code == client.delete(f"/jobs/{job_id}").status_code == 204
    assert len(delete_expired(app)) == 1
    assert client.delete(f"/jobs/{fork}").status_code == 204
    assert delete_expired(app) == []
    assert second["sha256"] != first["sha256"]


def test_uploading_the_same_data_again_restores_the_version_that_a_job_kept(app: Flask, client: FlaskClient) -> None:
    send(client, archive(seed=1))
    job_id = submit(client)
    train(app, job_id)
    assert client.delete("/datasets/mine").status_code == 204
    restored = send(client, archive(seed=1))
    assert client.get("/datasets/mine").json["versions"] == [restored["version"]]
    assert len(delete_expired(app)) == 1
    assert client.delete(f"/jobs/{job_id}").status_code == 204
    assert len(delete_expired(app)) == 1, "it has a name again"


def test_one_version_can_be_deleted_by_its_name(app: Flask, client: FlaskClient) -> None:
    first, second = send(client, archive(seed=1)), send(client, archive(seed=2))
    job_id = submit(client)
    rejected = client.delete("/datasets/mine")
    assert (rejected.status_code, rejected.json["jobs"]) == (409, [job_id])
    for malformed in ("mine@", "mine@1", "mine@%25%25%25%25%25%25"):
        assert client.delete(f"/datasets/{malformed}").status_code == 404
    assert client.delete(f"/datasets/{first['version']}").status_code == 204
    assert client.delete(f"/datasets/{second['version']}").json["code"] == "dataset_in_use"
    assert client.get("/datasets/mine").json["versions"] == [second["version"]]


def test_a_job_submitted_while_its_dataset_is_deleted_keeps_it_or_is_rejected(app: Flask, client: FlaskClient) -> None:
    core: Core = app.extensions[EXTENSION]
    send(client, archive())
    answers: list[Any] = []

    def post() -> None:
        with app.test_client() as thread_client:
            answers.extend(thread_client.post("/jobs", json=SMALL) for _ in range(8))

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    delete_statuses = [client.delete("/datasets/mine").status_code for _ in range(3)]
    for thread in threads:
        thread.join()
    assert set(delete_statuses) <= {204, 404, 409}
    accepted = [answer.json["id"] for answer in answers if answer.status_code == 201]
    assert {answer.status_code for answer in answers} <= {201, 422}
    delete_expired(app)
    with core.database.read() as session:
        for job_id in accepted:
            upload_id = lookup.get(session, job_id).upload_id
            assert upload_id is not None
            assert session.get(Upload, upload_id) is not None
            assert provided(DatasetUploads, app).files.names(upload_id)


def test_a_changed_dataset_folder_is_reported_as_the_reason_for_a_failure(
    make_app: MakeApp, migrated_url: str, tmp_path: Path
) -> None:
    app = make_app(migrated_url)
    core: Core = app.extensions[EXTENSION]
    client, folder = app.test_client(), core.settings.data / "mine"

    def fill(seed: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(core.settings.datasets_cache, ignore_errors=True)
        folder.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        for part in ("train", "t10k"):
            write_idx(folder / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (40, 6, 5)).astype(np.uint8))
            write_idx(folder / f"{part}-labels-idx1-ubyte", (np.arange(40) % 4).astype(np.uint8))

    fill(1)
    job_id = submit(client)
    job = train(app, job_id)
    assert (job.status, job.dataset_sha256) == ("succeeded", job.provenance["dataset"])
    fill(2)
    reproduction = client.post(f"/jobs/{job_id}/reproduce").json["id"]
    failed = train(app, reproduction)
    assert (failed.status, failed.error["code"]) == ("failed", "dataset_changed")
    assert job.dataset_sha256[:19] in failed.error["message"]
    answer = client.get(f"/jobs/{job_id}/mistakes")
    assert (answer.status_code, answer.json["code"]) == (409, "dataset_changed")
    fill(1)
    assert client.get(f"/jobs/{job_id}/mistakes").status_code == 200


def test_jobs_can_be_filtered_by_a_dataset_or_by_one_of_its_versions(app: Flask, client: FlaskClient) -> None:
    first = send(client, archive(seed=1))
    by_name_before = submit(client)
    second = send(client, archive(seed=2))
    by_version, by_name = submit(client, dataset=first["version"]), submit(client)
    for name in ("mine2", "min", "Mine"):
        send(client, archive(seed=3), name)
        submit(client, dataset=name)

    def job_ids(dataset: str) -> set[str]:
        return {job["id"] for job in client.get("/jobs", query_string={"dataset": dataset}).json["data"]}

    assert job_ids("mine") == {by_name_before, by_version, by_name}
    assert job_ids(first["version"]) == job_ids(first["version"][:-4]) == {by_name_before, by_version}
    assert job_ids(second["version"]) == {by_name}
    assert job_ids("mine@%") == job_ids("m%") == job_ids("mine2@" + first["sha256"][-12:]) == set()
