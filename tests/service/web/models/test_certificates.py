"""Certificates over HTTP: who gets one, when it is made again, and that nothing is left of one that cannot be made."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from service.models.certificates import signing, signing_keys
from service.runtime.settings import Auth
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Artifact, Job
from service.web.core.core import EXTENSION, Core
from tapeline.verify import checking, trusted_keys
from tests.service.web.conftest import MakeApp, SimulatedWorker
from tests.service.web.markup import one_line
from tests.tapeline.verify import making

SPEC = {"kind": "classifier", "dataset": "iris", "epochs": making.EPOCHS, "name": "first"}
PROVENANCE = {"numpy": "2.4", "threads": 1, "code": f"sha256:{'c' * 64}"}
KEYS = "/.well-known/tapeline-keys.json"


def train(client: FlaskClient, worker: SimulatedWorker, *, ends: bool = True) -> str:
    """A job whose checkpoints have its spec, as those of real workers."""
    job = client.post("/jobs", json=SPEC).json
    assert job is not None
    worker.claim()
    for epoch in range(1, making.EPOCHS + 1):
        worker.commit_epoch(epoch, checkpoint=making.checkpoint_bytes(job["resolved"], epoch))
    if ends:
        succeed(worker, job["id"])
    return str(job["id"])


def succeed(worker: SimulatedWorker, job_id: str) -> None:
    """The end of a training, with what a real worker records of it."""
    worker.succeed()
    with worker.database.write() as session:
        job = session.get_one(Job, job_id)
        job.provenance, job.result_digest = PROVENANCE, f"sha256:{'e' * 64}"
        job.dataset_sha256 = f"sha256:{'d' * 64}"


def download(client: FlaskClient, job_id: str, status: int = 200, **query: Any) -> Any:
    response = client.get(f"/jobs/{job_id}/certificate", query_string=query)
    data = response.get_data()
    response.close()  # the file
    assert response.status_code == status, data[:500]
    return response


def unpacked(data: bytes, to: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.extractall(to)
    (folder,) = to.iterdir()
    return folder


def core(app: Flask) -> Core:
    found: Core = app.extensions[EXTENSION]
    return found


def test_the_certificate_verifies_with_the_published_keys(
    either_app: Flask, make_worker: Callable[[Flask], SimulatedWorker], tmp_path: Path
) -> None:
    client = either_app.test_client()
    job_id = train(client, make_worker(either_app))
    folder = unpacked(download(client, job_id).data, tmp_path / "unpacked")
    assert folder.name == "first-certificate"
    keys = tmp_path / "keys.json"
    keys.write_text(client.get(KEYS).text)
    found = checking.verify(folder, trusted_keys.load(str(keys)))
    job = client.get(f"/jobs/{job_id}").json
    digests = client.get(f"/jobs/{job_id}/digests").json
    assert job is not None
    assert digests is not None
    assert found.is_trusted
    assert found.provenance.job == job_id
    assert found.provenance.spec_hash == job["spec_hash"]
    assert {item["epoch"]: item["digest"] for item in digests["epochs"]} == dict(found.provenance.epochs)
    later = client.get(f"/jobs/{job_id}/digests?after=2").json
    assert later is not None
    assert [item["epoch"] for item in later["epochs"]] == [3]
    older = unpacked(download(client, job_id, checkpoint="2").data, tmp_path / "older")
    assert checking.verify(older).provenance.checkpoint == 2


def test_a_certificate_is_made_once_and_again_after_the_key_was_replaced(
    client: FlaskClient, app: Flask, worker: SimulatedWorker, tmp_path: Path
) -> None:
    job_id = train(client, worker)
    first = download(client, job_id).data
    assert download(client, job_id).data == first
    with client.get(f"/jobs/{job_id}/export/certificate") as exported:
        assert exported.data == first
    old = signing.open_signer(core(app).settings)
    signing.replace_key(core(app).settings.signing_key_file)
    signing_keys.retire(core(app).database, old.kid)
    second = download(client, job_id).data
    assert second != first
    kids = {checking.verify(unpacked(data, tmp_path / str(index))).kid for index, data in enumerate((first, second))}
    assert kids == {entry["kid"] for entry in client.get(KEYS).json["keys"]}  # type: ignore[index]
    stored = client.get(f"/jobs/{job_id}/artifacts").json
    assert stored is not None
    assert [item["kind"] for item in stored["data"]].count(ArtifactKind.CERTIFICATE) == 1


def test_a_job_that_has_not_succeeded_has_none_and_no_key_is_made_for_it(
    client: FlaskClient, app: Flask, worker: SimulatedWorker
) -> None:
    job_id = train(client, worker, ends=False)
    refusal = download(client, job_id, 409).json
    assert (refusal["code"], refusal["job_status"]) == ("not_certifiable", "running")
    assert 'aria-describedby="export-certificate" disabled' in one_line(client.get(f"/ui/jobs/{job_id}").text)
    assert client.get(KEYS).json == {"keys": []}
    assert not core(app).settings.signing_key_file.exists()
    succeed(worker, job_id)
    download(client, job_id)
    assert 'aria-describedby="export-certificate">Certificate' in one_line(client.get(f"/ui/jobs/{job_id}").text)


def test_an_unknown_checkpoint_is_named(client: FlaskClient, worker: SimulatedWorker) -> None:
    job_id = train(client, worker)
    assert "available epochs: 1, 2, 3" in download(client, job_id, 404, checkpoint="9").json["detail"]


@pytest.mark.stack
def test_a_key_that_cannot_sign_leaves_nothing_behind(
    make_app: MakeApp, sqlite_url: str, make_worker: Callable[[Flask], SimulatedWorker], tmp_path: Path
) -> None:
    key = tmp_path / "key.pub"
    key.write_text(making.signer(tmp_path / "elsewhere").public_key)
    app = make_app(sqlite_url, signing_key=key, signing_command="false")
    client = app.test_client()
    job_id = train(client, make_worker(app))
    before = client.get(f"/jobs/{job_id}/artifacts").json
    refusal = download(client, job_id, 503).json
    assert refusal["code"] == "signing_unavailable"
    assert "exit code 1" in refusal["detail"]
    assert client.get(f"/jobs/{job_id}/artifacts").json == before


def test_the_keys_are_public(make_app: MakeApp, sqlite_url: str) -> None:
    client = make_app(sqlite_url, auth=Auth.KEYS).test_client()
    assert client.get("/jobs").status_code == 401
    assert client.get(KEYS).json == {"keys": []}


def test_a_gate_asks_for_a_certificate_that_verifies(client: FlaskClient, worker: SimulatedWorker, app: Flask) -> None:
    job_id = train(client, worker)
    version = client.post("/models/iris/versions", json={"job": job_id}).json
    client.put("/models/iris/aliases/champion/gates", json=[{"certificate": True}])
    refused = client.put("/models/iris/aliases/champion", json={"version": 1}).json
    assert (refused["code"], refused["gates"][0]["evidence"]["certified"]) == ("gate_failed", False)
    [remedy] = refused["gates"][0]["remedies"]
    assert remedy["path"] == f"/jobs/{job_id}/certificate?checkpoint={version['checkpoint']}"
    made = client.get(remedy["path"])
    assert made.status_code == 200
    made.close()
    moved = client.put("/models/iris/aliases/champion", json={"version": 1}).json
    assert (moved["moved"], moved["findings"][0]["evidence"]["certified"]) == (True, True)
    with core(app).database.write() as session:
        row = session.scalars(select(Artifact).where(Artifact.kind == ArtifactKind.CERTIFICATE)).one()
        row.sha256 = "0" * 64
    damaged = client.put("/models/iris/aliases/champion?dry_run=true", json={"version": 1}).json
    assert (damaged["passed"], "not valid" in damaged["findings"][0]["sentence"]) == (False, True)
