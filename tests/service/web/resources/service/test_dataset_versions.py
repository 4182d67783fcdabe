"""Jobs keep the dataset version that they were submitted with; trained as in a child process."""

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

from service.datasets.formats.idx import write_idx
from service.jobs import leases
from service.jobs.queries import lookup
from service.maintenance.retention import Policy
from service.storage.tables import Upload
from service.web.services import EXTENSION, Services
from tests.faults.conftest import NoSupervisor
from tests.service.web.conftest import MakeApp
from workers.reconcile import delete_expired_data
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
    """What a child does with the order to train this job, the only one that waits."""
    here: Services = app.extensions[EXTENSION]
    held = leases.claim(here.database, "test", 600.0)
    assert held is not None
    assert held.job_id == job_id
    try:
        run.train(here.settings, here.database, held, NoSupervisor())
    finally:
        limits.lift_memory_limit()
    with here.database.read() as session:
        return lookup.get(session, job_id)


def tidy(app: Flask) -> list[str]:
    """Sweep, and tell which uploads' files are left."""
    here: Services = app.extensions[EXTENSION]
    delete_expired_data(here.database, here.artifacts, here.dataset_uploads.folder, Policy())
    return sorted(path.name for path in (here.settings.artifacts / "datasets").iterdir())


@pytest.fixture
def app(make_app: MakeApp, either_url: str) -> Flask:
    return make_app(either_url)


def test_a_name_is_its_newest_version_and_each_version_has_a_name(app: Flask, client: FlaskClient) -> None:
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


@pytest.mark.sqlite_by_default
def test_a_job_keeps_its_data_when_the_name_gets_others(app: Flask, client: FlaskClient) -> None:
    first = send(client, archive(seed=1))
    job_id, other = submit(client), submit(client, seed=9)
    second = send(client, archive(rows=9, classes=3, seed=2))
    job, _ = train(app, job_id), train(app, other)
    assert (job.status, job.dataset_sha256) == ("succeeded", first["sha256"])
    before = client.get(f"/jobs/{job_id}/mistakes").json
    assert client.delete("/datasets/mine").status_code == 204
    assert client.get("/datasets/mine").status_code == 404
    assert client.post("/jobs", json=SMALL).json["errors"][0]["code"] == "dataset_not_found"
    assert client.get(f"/jobs/{job_id}/mistakes").json == before
    image = np.zeros((6, 5), int).tolist()
    assert client.post(f"/jobs/{job_id}/predict", json={"images": [image]}).status_code == 200
    # Nobody needs the second version; the first goes with the last job that was trained on it.
    again = client.post(f"/jobs/{job_id}/reproduce").json["id"]
    assert len(tidy(app)) == 1
    assert train(app, again).reproduction["match"] is True
    fork = client.post(f"/jobs/{job_id}/fork", json={"overrides": {"epochs": 2}}).json["id"]
    assert train(app, fork).provenance["dataset"] == first["sha256"]
    investigation = client.post("/differences", json={"a": job_id, "b": other})
    assert investigation.status_code == 201, investigation.text
    assert train(app, investigation.json["id"]).investigation["sentence"]
    for done in (investigation.json["id"], other):
        assert client.delete(f"/jobs/{done}").status_code == 204
    assert client.delete(f"/jobs/{again}").status_code == client.delete(f"/jobs/{job_id}").status_code == 204
    assert len(tidy(app)) == 1
    assert client.delete(f"/jobs/{fork}").status_code == 204
    assert tidy(app) == []
    assert second["sha256"] != first["sha256"]


@pytest.mark.sqlite_by_default
def test_the_same_data_sent_again_are_those_that_jobs_kept(app: Flask, client: FlaskClient) -> None:
    send(client, archive(seed=1))
    job_id = submit(client)
    train(app, job_id)
    assert client.delete("/datasets/mine").status_code == 204
    again = send(client, archive(seed=1))
    assert client.get("/datasets/mine").json["versions"] == [again["version"]]
    assert len(tidy(app)) == 1
    assert client.delete(f"/jobs/{job_id}").status_code == 204
    assert len(tidy(app)) == 1, "it has a name again"


@pytest.mark.sqlite_by_default
def test_one_version_is_deleted_by_its_name(app: Flask, client: FlaskClient) -> None:
    first, second = send(client, archive(seed=1)), send(client, archive(seed=2))
    job_id = submit(client)
    refused = client.delete("/datasets/mine")
    assert (refused.status_code, refused.json["jobs"]) == (409, [job_id])
    for malformed in ("mine@", "mine@1", "mine@%25%25%25%25%25%25"):
        assert client.delete(f"/datasets/{malformed}").status_code == 404
    assert client.delete(f"/datasets/{first['version']}").status_code == 204
    assert client.delete(f"/datasets/{second['version']}").json["code"] == "dataset_in_use"
    assert client.get("/datasets/mine").json["versions"] == [second["version"]]


def test_jobs_that_are_submitted_while_their_dataset_is_deleted_have_it_or_are_refused(
    app: Flask, client: FlaskClient
) -> None:
    here: Services = app.extensions[EXTENSION]
    send(client, archive())
    answers: list[Any] = []

    def post() -> None:
        with app.test_client() as another:
            answers.extend(another.post("/jobs", json=SMALL) for _ in range(8))

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    deleted = [client.delete("/datasets/mine").status_code for _ in range(3)]
    for thread in threads:
        thread.join()
    assert set(deleted) <= {204, 404, 409}
    accepted = [answer.json["id"] for answer in answers if answer.status_code == 201]
    assert {answer.status_code for answer in answers} <= {201, 422}
    tidy(app)
    with here.database.read() as session:
        for job_id in accepted:
            pinned = lookup.get(session, job_id).upload_id
            assert pinned is not None
            assert session.get(Upload, pinned) is not None
            assert here.dataset_uploads.folder.files(pinned)


@pytest.mark.sqlite_by_default
def test_a_folder_that_was_changed_is_named_as_the_reason(make_app: MakeApp, either_url: str, tmp_path: Path) -> None:
    app = make_app(either_url)
    here: Services = app.extensions[EXTENSION]
    client, folder = app.test_client(), here.settings.data / "mine"

    def fill(seed: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(here.settings.datasets_cache, ignore_errors=True)
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
    again = client.post(f"/jobs/{job_id}/reproduce").json["id"]
    failed = train(app, again)
    assert (failed.status, failed.error["code"]) == ("failed", "dataset_changed")
    assert job.dataset_sha256[:19] in failed.error["message"]
    answer = client.get(f"/jobs/{job_id}/mistakes")
    assert (answer.status_code, answer.json["code"]) == (409, "dataset_changed")
    fill(1)
    assert client.get(f"/jobs/{job_id}/mistakes").status_code == 200


def test_jobs_are_found_by_a_dataset_and_by_one_version_of_it(app: Flask, client: FlaskClient) -> None:
    first = send(client, archive(seed=1))
    by_name_before = submit(client)
    second = send(client, archive(seed=2))
    by_version, by_name = submit(client, dataset=first["version"]), submit(client)
    for other in ("mine2", "min", "Mine"):
        send(client, archive(seed=3), other)
        submit(client, dataset=other)

    def found(dataset: str) -> set[str]:
        return {job["id"] for job in client.get("/jobs", query_string={"dataset": dataset}).json["data"]}

    assert found("mine") == {by_name_before, by_version, by_name}
    assert found(first["version"]) == found(first["version"][:-4]) == {by_name_before, by_version}
    assert found(second["version"]) == {by_name}
    assert found("mine@%") == found("m%") == found("mine2@" + first["sha256"][-12:]) == set()
