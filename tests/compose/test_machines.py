"""Workers that share no volume with the web process: beside it, and on another machine, which is another project."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.compose.conftest import ROOT, Service, docker, require_image

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(480)]

BUCKET = {"COMPOSE_PROFILES": "s3", "TAPELINE_STORE": "s3://tapeline", "TAPELINE_WORKERS": "1"}


@pytest.fixture(scope="module")
def seaweedfs(image: str) -> str:
    return require_image(os.environ.get("SEAWEEDFS_IMAGE", "chrislusf/seaweedfs:4.48"))


def train_on(service: Service, expected: set[str]) -> None:
    """Train jobs until each of these workers, given by the first part of their names, has trained one."""
    seen: set[str] = set()
    for seed in range(3):
        ids = [service.submit(kind="gan", epochs=3, seed=10 * seed + number) for number in range(4)]
        for job_id in ids:
            service.wait_until_success(job_id)
            service.check_download(job_id)
            seen |= expected & set(service.trained_by(job_id))
        if seen == expected:
            return
    pytest.fail(f"only {seen} of {expected} trained")


def test_workers_of_the_profile_share_no_volume(seaweedfs: str) -> None:
    service = Service(settings=BUCKET | {"TAPELINE_STORE_ENDPOINT": "http://seaweedfs:8333"})
    try:
        service.compose("up", "--detach", "--wait", "--scale", "worker=0")
        workers = service.containers("s3-worker")
        mounted = []
        for container in [*workers, *service.containers("web")]:
            (details,) = json.loads(docker("inspect", container))
            assert details["HostConfig"]["ReadonlyRootfs"]
            mounted.append({mount["Name"] for mount in details["Mounts"] if mount["RW"]})
        assert len(workers) == 2
        assert len(set.union(*mounted)) == sum(map(len, mounted)) > 3
        train_on(service, {container[:12] for container in workers})
    finally:
        service.down()


@pytest.fixture
def shared(seaweedfs: str) -> Iterator[Service]:
    """A service that publishes its servers on an address of this machine."""
    address = json.loads(docker("network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]["Gateway"]
    addresses = {"TAPELINE_STORE_ENDPOINT": "https://seaweedfs:8333", "SHARE_ADDRESS": address}
    service = Service(files=("docker-compose.yml", "deploy/shared.yml"), settings=BUCKET | addresses)
    try:
        service.compose("up", "--detach", "--wait")
        yield service
    finally:
        service.down()


def test_an_invited_worker_on_another_machine_shares_the_work_over_tls(shared: Service, tmp_path: Path) -> None:
    address = shared.settings["SHARE_ADDRESS"]
    invited = shared.compose("exec", "-T", "web", "tapeline", "workers", "invite", "second", "--host", address)
    (tmp_path / "worker.env").write_text(f"{invited}TAPELINE_WORKERS=1\n")
    shutil.copy(ROOT / "deploy" / "worker.yml", tmp_path)
    second = Service(folder=tmp_path, files=("worker.yml",))
    try:
        second.compose("up", "--detach", "--wait")
        (local,) = shared.containers("worker")
        train_on(shared, {"second", local[:12]})
        assert "over TLS" in shared.compose("exec", "-T", "web", "tapeline", "doctor")
    finally:
        second.down()
    variables = dict(line.split("=", 1) for line in invited.splitlines() if not line.startswith("#"))
    url = variables["TAPELINE_DATABASE_URL"].replace("+psycopg", "").replace("verify-full", "disable")
    with pytest.raises(psycopg.OperationalError, match="no encryption"), closing(psycopg.connect(url)):
        pass
