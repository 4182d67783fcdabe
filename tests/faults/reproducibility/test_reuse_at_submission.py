"""A submitted job gets its result at once: the web process copies that of an earlier, equal job."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import func, select

from service.access.audit import Actor
from service.application.jobs import Jobs
from service.application.specs import SpecChecks
from service.datasets.repository import DatasetRepository
from service.features.webhooks.tables import Webhook, WebhookDelivery
from service.jobs import worker_registry
from service.jobs.queries import lookup
from service.jobs.reuse.copies import Copied
from service.jobs.submissions import IdempotencyKey
from service.maintenance import retention
from service.runtime import failpoints
from service.states import Status
from service.storage.tables import AuditEntry, Job, Worker
from tests.faults.conftest import InProcessHarness
from tests.faults.reproducibility.results import result
from workers.training import provenance

IRIS = {"kind": "classifier", "dataset": "iris", "epochs": 5, "schedule": {"name": "constant"}}


def use_case(process: InProcessHarness) -> Jobs:
    """The use case of a web process, while a worker with the provenance of this process is alive."""
    worker = Worker(
        id="w", host="h", pid=1, slots=1, running=0, draining=False, provenance=provenance.base_provenance()
    )
    worker_registry.record_heartbeat(process.database, worker)
    repository = DatasetRepository(process.workers.settings, process.database)
    specs = SpecChecks(database=process.database, datasets=repository)
    woken: list[str] = []
    return Jobs(database=process.database, artifacts=process.artifacts, specs=specs, wake_up=woken.append)


def submit(process: InProcessHarness, jobs: Jobs, by: Actor | None = None, **fields: Any) -> Job:
    answer = jobs.submit(IRIS | fields, by=by).answer
    process.accepted.append(answer["id"])
    return process.workers.job(answer["id"])


@pytest.fixture
def trained(process: InProcessHarness) -> tuple[Jobs, Job]:
    jobs = use_case(process)
    first = submit(process, jobs, Actor(owner="ana"))
    assert process.train() == "succeeded"
    return jobs, process.workers.job(first.id)


def test_an_equal_job_gets_its_result_at_submission(process: InProcessHarness, trained: tuple[Jobs, Job]) -> None:
    jobs, first = trained
    for _ in range(5):
        began = time.process_time()  # of all threads; other tests share the cores
        again = submit(process, jobs, Actor(owner="ana"), reuse="exact")
        assert time.process_time() - began < 0.2
    assert (again.status, again.reused_from) == (Status.SUCCEEDED, first.id)
    assert (again.provenance, again.test_scores) == (first.provenance, first.test_scores)
    assert result(process, again) == result(process, first)
    assert again.last_seq == len(process.workers.log(again.id))
    with process.database.read() as session:
        row = session.scalars(select(AuditEntry).where(AuditEntry.subject == again.id)).one()
        assert row.detail == {"reused_from": first.id}
    process.check(None)


def test_a_job_of_another_owner_is_not_reused(process: InProcessHarness, trained: tuple[Jobs, Job]) -> None:
    jobs, _ = trained
    for by in (Actor(owner="ben"), None):
        assert submit(process, jobs, by, reuse="exact").status == Status.QUEUED


def test_a_worker_with_different_or_unknown_provenance_prevents_reuse(
    process: InProcessHarness, trained: tuple[Jobs, Job]
) -> None:
    jobs, _ = trained
    other = provenance.base_provenance() | {"numpy": "0.0.1"}
    for reported in (other, None):
        worker = Worker(id="w", host="h", pid=1, slots=1, running=0, draining=False, provenance=reported)
        worker_registry.record_heartbeat(process.database, worker)
        assert submit(process, jobs, Actor(owner="ana"), reuse="exact").status == Status.QUEUED


@pytest.mark.parametrize("place", ["reuse_stored", "reusing"])
def test_a_web_process_that_dies_during_a_submission_leaves_no_job(
    process: InProcessHarness, trained: tuple[Jobs, Job], place: str
) -> None:
    jobs, first = trained
    process.arm(place)
    with pytest.raises(failpoints.SimulatedKill):
        submit(process, jobs, Actor(owner="ana"), reuse="exact")
    with process.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1
    process.check(None)  # the files are removed as orphaned
    assert submit(process, jobs, Actor(owner="ana"), reuse="exact").reused_from == first.id


def clean_up(process: InProcessHarness) -> None:
    """Remove orphaned files, as the scheduler does."""

    def paths(job_ids: Sequence[str]) -> dict[str, set[str]]:
        with process.database.read() as session:
            return lookup.paths(session, job_ids)

    orphans = list(process.artifacts.orphans(paths, older_than_s=retention.STALE_FILE_S))
    process.artifacts.remove(item.path for item in orphans)


def make_old(process: InProcessHarness) -> None:
    for path in process.artifacts.root.rglob("*"):
        os.utime(path, (0, 0))


def test_a_cleanup_before_the_commit_keeps_the_files_of_the_new_job(
    process: InProcessHarness, trained: tuple[Jobs, Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, first = trained
    make_old(process)
    store = Copied.store

    def clean_up_and_store(copied: Copied, *arguments: Any, **options: Any) -> None:
        clean_up(process)
        store(copied, *arguments, **options)

    monkeypatch.setattr(Copied, "store", clean_up_and_store)
    again = submit(process, jobs, Actor(owner="ana"), reuse="exact")
    assert again.reused_from == first.id
    process.check(None)


@pytest.mark.nightly
def test_cleanups_at_random_moments_keep_the_files_of_new_jobs(
    process: InProcessHarness, trained: tuple[Jobs, Job]
) -> None:
    jobs, first = trained
    stopping = threading.Event()

    def repeat() -> None:
        while not stopping.is_set():
            clean_up(process)

    with ThreadPoolExecutor(2) as pool:
        loops = [pool.submit(repeat) for _ in range(2)]
        try:
            for _ in range(30):
                make_old(process)  # while a cleanup runs
                assert submit(process, jobs, Actor(owner="ana"), reuse="exact").reused_from == first.id
        finally:
            stopping.set()
        for loop in loops:
            loop.result()
    process.check(None)


def test_damage_to_a_file_of_one_job_does_not_affect_the_job_that_reused_it(
    process: InProcessHarness, trained: tuple[Jobs, Job]
) -> None:
    jobs, first = trained
    again = submit(process, jobs, Actor(owner="ana"), reuse="exact")
    [*paths] = (process.artifacts.root / first.id).rglob("*.safetensors")
    assert paths
    for path in paths:
        path.write_bytes(b"damaged")
    with process.database.read() as session:
        rows = lookup.artifacts(session, again.id)
    assert rows
    for row in rows:
        process.artifacts.read(row.path, row.sha256)


def test_a_repeated_idempotency_key_gets_the_same_answer(process: InProcessHarness, trained: tuple[Jobs, Job]) -> None:
    jobs, _ = trained
    document = IRIS | {"reuse": "exact"}
    key = IdempotencyKey(key="mine", fingerprint="1")
    once, twice = (jobs.submit(document, by=Actor(owner="ana"), idempotency=key) for _ in range(2))
    assert once.answer == twice.answer
    process.accepted.append(once.answer["id"])
    assert {path.name for path in process.artifacts.root.glob("job_*")} == set(process.accepted)
    process.check(None)


def test_a_result_that_is_reused_at_once_is_announced_as_that_of_a_training(
    trained: tuple[Jobs, Job], process: InProcessHarness
) -> None:
    jobs, _ = trained
    with process.database.write() as session:
        session.add(
            Webhook(id="whk_1", owner="ana", url="https://x", host="x", events=["job.succeeded"], failures=0,
                    secret="s", signing_key="k", created_ms=1)
        )  # fmt: skip
    second = submit(process, jobs, Actor(owner="ana"), reuse="exact")
    assert second.reused_from is not None
    with process.database.read() as session:
        [message] = session.scalars(select(WebhookDelivery)).all()
        data = json.loads(message.data)
        assert (message.type, data["id"], data["reason"]) == ("job.succeeded", second.id, "reused")
        assert data["seq"] == second.last_seq
