"""A whole service moves from its folder into SeaweedFS while it trains."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from service.local import LocalStack
from service.runtime.settings import Settings
from tests.e2e.test_object_store import CLASSIFIER, submit, until
from tests.object_servers import BUCKET, credentials
from tests.waiting import wait_until

# tests/service/maintenance/test_store_migration.py moves a service whose workers are simulated
pytestmark = pytest.mark.nightly


def test_a_service_moves_while_it_trains(seaweedfs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in credentials().items():
        monkeypatch.setenv(name, value)
    environ = {"TAPELINE_HOME": str(tmp_path), "TAPELINE_PORT": "0"}
    moved = {"TAPELINE_STORE": f"s3://{BUCKET}/moved", "TAPELINE_STORE_ENDPOINT": seaweedfs}
    long = {**CLASSIFIER, "epochs": 60, "seed": 3, "reuse": "never"}
    command = [sys.executable, "-m", "tapeline", "store", "migrate", f"file://{tmp_path / 'artifacts'}"]
    command += [moved["TAPELINE_STORE"], "--to-endpoint", seaweedfs, "--json"]
    with (
        LocalStack(Settings.from_env(environ, cores=2)) as stack,
        httpx.Client(base_url=stack.url, timeout=60) as http,
    ):
        ended = until(http, submit(http, CLASSIFIER), "succeeded")
        running = [submit(http, long) for _ in range(2)]
        until(http, running[0], "running", epoch=2)
        done = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert (report["switched"], report["waiting"], report["damaged"]) == (True, False, [])

        def is_released() -> bool:
            return all(http.get(job["urls"]["self"]).json()["status"] == "queued" for job in running)

        wait_until(is_released, "both jobs are queued", timeout_s=120)
        assert http.get("/readyz").status_code == 503
        exported = http.get(f"{ended['urls']['self']}/export/pytorch")
        assert (exported.status_code, exported.json()["code"]) == (503, "store_unavailable"), exported.text
    with (
        LocalStack(Settings.from_env(environ | moved, cores=2)) as stack,
        httpx.Client(base_url=stack.url, timeout=60) as http,
    ):
        for job in running:
            after = until(http, job, "succeeded")
            assert after["attempt"] == 1, "a move counts no attempt"
        first, second = (http.get(job["urls"]["self"]).json()["result_digest"] for job in running)
        assert first == second
        checkpoint = http.get(ended["urls"]["results"]).json()["checkpoints"]["latest"]
        assert hashlib.sha256(http.get(checkpoint["url"]).content).hexdigest() == checkpoint["sha256"]
        undisturbed = until(http, submit(http, long), "succeeded")
        assert undisturbed["result_digest"] == first
