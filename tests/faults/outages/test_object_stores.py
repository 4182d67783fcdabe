"""Workers whose store is a bucket: it is silent, it is killed, or an upload breaks between two parts."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.jobs import actions, worker_registry
from service.storage.object_store import ObjectStore
from tests.faults.harness import COMMITS_EACH_EPOCH, FaultHarness
from tests.faults.invariants import Reference
from tests.object_servers import BUCKET, Exchange, FaultyProxy, credentials, free_ports, serve_seaweedfs
from tests.waiting import wait_until
from tests.workers.conftest import children_of

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def proxy(moto: str) -> Iterator[FaultyProxy]:
    with closing(FaultyProxy(moto)) as proxy:
        yield proxy


@pytest.fixture
def in_bucket(harness: FaultHarness, proxy: FaultyProxy, moto: str, monkeypatch: pytest.MonkeyPatch) -> FaultHarness:
    """Workers that reach a bucket through the proxy; the test itself connects directly."""
    for name, value in credentials().items():
        monkeypatch.setenv(name, value)
    url = f"s3://{BUCKET}/{harness.home.parent.name}"
    environ = {"TAPELINE_STORE": url, "TAPELINE_STORE_ENDPOINT": proxy.url, "TAPELINE_ARTIFACTS": ""}
    harness.extra_environ |= environ
    harness.bucket = ObjectStore(url, endpoint=moto, lease_s=30)
    return harness


@pytest.mark.nightly
def test_jobs_that_wait_too_long_for_the_store_fail_and_continue_when_retried(
    in_bucket: FaultHarness, proxy: FaultyProxy, reference: Reference
) -> None:
    in_bucket.extra_environ |= {"TAPELINE_STORE_TIMEOUT_S": "12"}
    in_bucket.patch("from service.storage import object_store\nobject_store._MIN_TIMEOUT_S = 1.0")
    in_bucket.extra_environ |= COMMITS_EACH_EPOCH
    in_bucket.arm("epoch_committed.2", "stop")
    interrupted, waiting = in_bucket.submit(), in_bucket.submit()
    in_bucket.start("workers.scheduler")
    in_bucket.start(TAPELINE_WORKERS="1")
    os.kill(in_bucket.until_reached("epoch_committed.2"), signal.SIGCONT)
    proxy.fault = lambda exchange: "hang"
    in_bucket.until(interrupted, lambda job: job.status == "failed")
    job = in_bucket.job(interrupted)
    assert job.error is not None
    assert (job.error["code"], job.epoch, job.attempt) == ("storage", 2, 1)
    assert "no worker could use the store for 12 s (TAPELINE_STORE_TIMEOUT_S): " in job.error["message"]
    assert "then retry: the last checkpoint is kept" in job.error["hint"]
    assert in_bucket.job(waiting).status == "queued"
    proxy.fault = lambda exchange: None
    actions.retry(in_bucket.database, interrupted)
    in_bucket.until_all_end()
    in_bucket.check(reference)


@pytest.mark.nightly
def test_a_killed_store_is_waited_for_and_has_every_file(
    harness: FaultHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in credentials().items():
        monkeypatch.setenv(name, value)
    folder, ports, url = tmp_path / "seaweedfs", free_ports(8), f"s3://{BUCKET}/killed"
    folder.mkdir()
    with serve_seaweedfs(folder, ports) as endpoint:
        harness.extra_environ |= {"TAPELINE_STORE": url, "TAPELINE_STORE_ENDPOINT": endpoint, "TAPELINE_ARTIFACTS": ""}
        harness.extra_environ |= COMMITS_EACH_EPOCH
        harness.bucket = ObjectStore(url, endpoint=endpoint, lease_s=30)
        harness.start("workers.scheduler")
        harness.start()
        digest = harness.until_end(harness.submit()).result_digest
        harness.arm("epoch_committed.2", "stop")  # otherwise the job may end before the store
        job_id = harness.submit(priority=4)
        child = harness.until_reached("epoch_committed.2")
    os.kill(child, signal.SIGCONT)
    wait_until(lambda: blocked(harness) == ["store"], "the worker to claim nothing")
    assert harness.job(job_id).epoch == 2
    with serve_seaweedfs(folder, ports):
        ended = harness.until_end(job_id)
        assert (ended.status, ended.result_digest) == ("succeeded", digest)
        harness.check(None)


def blocked(harness: FaultHarness) -> list[str]:
    """Why the workers claim nothing."""
    with harness.database.read() as session:
        rows = worker_registry.live_workers(session)
        return [row.blocked["reason"] for row in rows if row.blocked is not None]


@pytest.mark.nightly
def test_an_upload_broken_between_two_parts_leaves_no_file(in_bucket: FaultHarness, proxy: FaultyProxy) -> None:
    layers = [{"units": 1500, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
    undisturbed = in_bucket.submit(layers=layers)
    in_bucket.start("workers.scheduler")
    worker = in_bucket.start()
    digest = in_bucket.until_end(undisturbed).result_digest
    killed = threading.Event()

    def kill_once(exchange: Exchange) -> None:
        if "partNumber=2" in exchange.path and not killed.is_set():
            killed.set()
            for pid in children_of(worker.pid):
                os.kill(pid, signal.SIGKILL)

    proxy.fault = kill_once
    disturbed = in_bucket.submit(layers=layers, priority=4)
    ended = in_bucket.until_end(disturbed)
    assert killed.is_set()
    assert (ended.status, in_bucket.worker_losses(), ended.result_digest) == ("succeeded", 1, digest)
    in_bucket.check(None)
