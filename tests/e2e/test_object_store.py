"""The whole service with the files of jobs in SeaweedFS: the folder for artifacts stays empty."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from service.local import LocalStack
from service.runtime.settings import Settings
from service.storage.object_store import PART_BYTES, ObjectStore
from tapeline import Client
from tapeline.errors import ServerUnreachable
from tests.object_servers import BUCKET, is_loaded
from tests.service.storage.test_store_conformance import damage
from tests.waiting import wait_until
from tests.workers.conftest import children_of

pytestmark = pytest.mark.nightly

CLASSIFIER = {"kind": "classifier", "epochs": 4}
GAN = {"kind": "gan", "epochs": 2, "samples": {"count": 16}}
LIBRARY = "obstore"


@pytest.fixture
def http(in_bucket: LocalStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=in_bucket.url, timeout=60) as client:
        yield client


def submit(http: httpx.Client, spec: dict[str, Any]) -> dict[str, Any]:
    answer = http.post("/jobs", json=spec)
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


def until(http: httpx.Client, job: dict[str, Any], status: str, epoch: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def holds() -> bool:
        found.update(http.get(job["urls"]["self"]).json())
        assert found["status"] != "failed", found
        return bool(found["status"] == status and found["progress"]["epoch"] >= epoch)

    wait_until(holds, f"{status} at epoch {epoch}", timeout_s=120)
    return found


def test_images_and_checkpoints_of_both_kinds_are_downloaded(http: httpx.Client, in_bucket: LocalStack) -> None:
    for spec in (CLASSIFIER, GAN):
        job = submit(http, spec)
        until(http, job, "succeeded")
        results = http.get(job["urls"]["results"]).json()
        checkpoint = results["checkpoints"]["latest"]
        answer = http.get(checkpoint["url"])
        assert hashlib.sha256(answer.content).hexdigest() == checkpoint["sha256"]
        end = http.get(checkpoint["url"], headers={"Range": "bytes=-100"})
        assert (end.status_code, end.content) == (206, answer.content[-100:])
        assert http.head(checkpoint["url"]).headers["Content-Length"] == str(checkpoint["size_bytes"])
        for path in ("samples/1.png", "plots/curves.png", "plots/curves.png"):
            with Image.open(io.BytesIO(http.get(f"{job['urls']['self']}/{path}").content)) as image:
                assert image.format == "PNG"
    assert list(in_bucket.settings.artifacts.rglob("job_*")) == []
    assert http.delete(job["urls"]["self"]).status_code == 204
    assert http.get(checkpoint["url"]).status_code == 404


def test_a_download_of_other_bytes_breaks_off_and_a_range_of_them_is_not_checked(
    http: httpx.Client, in_bucket: LocalStack, tmp_path: Path
) -> None:
    layers = [{"units": 1500, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
    job = until(http, submit(http, {**CLASSIFIER, "epochs": 1, "layers": layers}), "succeeded")
    checkpoint = http.get(job["urls"]["results"]).json()["checkpoints"]["latest"]
    assert checkpoint["size_bytes"] > PART_BYTES
    settings = in_bucket.settings
    store = ObjectStore(settings.store, endpoint=settings.store_endpoint, lease_s=15)
    (path,) = [item.path for item in store.stored(job["id"]) if "/checkpoint/" in item.path]
    damage(store, path, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        http.get(checkpoint["url"])
    with Client(in_bucket.url) as client, pytest.raises(ServerUnreachable):
        client.download(checkpoint["url"], tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert http.get(checkpoint["url"], headers={"Range": "bytes=-1"}).status_code == 206
    assert http.delete(job["urls"]["self"]).status_code == 204


def test_a_job_of_a_killed_process_continues_from_the_store_with_the_same_digest(
    http: httpx.Client, in_bucket: LocalStack
) -> None:
    spec = {**CLASSIFIER, "epochs": 12, "seed": 5}
    undisturbed = until(http, submit(http, {**spec, "reuse": "never"}), "succeeded")
    job = submit(http, {**spec, "reuse": "never"})
    until(http, job, "running", epoch=3)
    os.kill(in_bucket.pids["worker"], signal.SIGKILL)  # and with it its children; another one is started
    ended = until(http, job, "succeeded")
    assert ended["attempt"] == 2
    assert ended["result_digest"] == undisturbed["result_digest"]


def test_only_processes_that_fork_no_more_have_loaded_the_library(http: httpx.Client, in_bucket: LocalStack) -> None:
    until(http, submit(http, {**CLASSIFIER, "epochs": 1}), "succeeded")
    assert http.get("/readyz").json()["checks"]["storage"] == {"status": "ok", "detail": "s3"}
    processes = loaded()
    pids, worker = {process.pid for process in processes}, in_bucket.pids["worker"]
    assert worker in pids
    assert not pids.isdisjoint(children_of(worker)), "a training process"
    assert any("gunicorn" in " ".join(process.cmdline()) for process in processes)
    for process in processes:
        assert not any(is_loaded(child.pid, LIBRARY) for child in process.children()), process.cmdline()


def loaded() -> list[psutil.Process]:
    """The processes of the stack that have loaded the library."""
    descendants = psutil.Process(os.getpid()).children(recursive=True)
    return [process for process in descendants if is_loaded(process.pid, LIBRARY)]


def test_a_backup_is_restored_into_another_part_of_the_bucket(
    http: httpx.Client, in_bucket: LocalStack, tmp_path: Path
) -> None:
    job = until(http, submit(http, {**CLASSIFIER, "epochs": 1}), "succeeded")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TAPELINE_")}
    environ = inherited | in_bucket.settings.to_env()
    archive = str(tmp_path / "backup.tar")
    run_command(environ, "backup", "--files", archive)
    run_command(environ, "backup", "--verify", archive)
    other = Settings.from_env({"TAPELINE_HOME": str(tmp_path / "other")}, cores=1).to_env()
    other |= {"TAPELINE_STORE": f"s3://{BUCKET}/restored", "TAPELINE_ARTIFACTS": ""}
    other["TAPELINE_STORE_ENDPOINT"] = in_bucket.settings.store_endpoint
    (tmp_path / "other").mkdir()
    run_command(inherited | other, "restore", archive)
    checkpoint = http.get(job["urls"]["results"]).json()["checkpoints"]["latest"]
    store = ObjectStore(other["TAPELINE_STORE"], endpoint=other["TAPELINE_STORE_ENDPOINT"], lease_s=15)
    (path,) = [item.path for item in store.stored(job["id"]) if "/checkpoint/" in item.path]
    assert len(store.read(path, checkpoint["sha256"])) == checkpoint["size_bytes"]
    run_command(inherited | other, "gc", "--dry-run")


def run_command(environ: dict[str, str], *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "tapeline", *arguments], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
