"""A job has its result when it is submitted: that of an equal job before, copied by the web process."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy import func, select

from service.access.audit import Actor
from service.application.jobs import Jobs
from service.application.specs import SpecChecks
from service.datasets.repository import DatasetRepository
from service.jobs import worker_registry
from service.jobs.submissions import IdempotencyKey
from service.runtime import failpoints
from service.states import Status
from service.storage.tables import AuditEntry, Job, Worker
from tests.faults.conftest import InProcess
from tests.faults.reproducibility.results import result
from workers.training import provenance

IRIS = {"kind": "classifier", "dataset": "iris", "epochs": 5, "schedule": {"name": "constant"}}


def use_case(process: InProcess) -> Jobs:
    """As a web process has it, while a worker like this process is alive."""
    here = Worker(id="w", host="h", pid=1, slots=1, running=0, draining=False, provenance=provenance.base_provenance())
    worker_registry.record_heartbeat(process.database, here)
    repository = DatasetRepository(process.workers.settings, process.database)
    specs = SpecChecks(database=process.database, datasets=repository)
    woken: list[str] = []
    return Jobs(database=process.database, artifacts=process.artifacts, specs=specs, wake_up=woken.append)


def submitted(process: InProcess, jobs: Jobs, by: Actor | None = None, **more: Any) -> Job:
    answer = jobs.submit(IRIS | more, by=by).answer
    process.accepted.append(answer["id"])
    return process.workers.job(answer["id"])


@pytest.fixture
def trained(process: InProcess) -> tuple[Jobs, Job]:
    jobs = use_case(process)
    first = submitted(process, jobs, Actor(owner="ana"))
    assert process.train() == "succeeded"
    return jobs, process.workers.job(first.id)


def test_an_equal_job_has_its_result_when_it_is_submitted(process: InProcess, trained: tuple[Jobs, Job]) -> None:
    jobs, first = trained
    took = []
    for _ in range(5):  # other tests share the processors
        began = time.perf_counter()
        again = submitted(process, jobs, Actor(owner="ana"), reuse="exact")
        took.append(time.perf_counter() - began)
    assert min(took) < 0.2
    assert (again.status, again.reused_from) == (Status.SUCCEEDED, first.id)
    assert (again.provenance, again.test_scores) == (first.provenance, first.test_scores)
    assert result(process, again) == result(process, first)
    assert again.last_seq == len(process.workers.log(again.id))
    with process.database.read() as session:
        row = session.scalars(select(AuditEntry).where(AuditEntry.subject == again.id)).one()
        assert row.detail == {"reused_from": first.id}
    process.check(None)


def test_a_job_of_another_owner_is_not_reused(process: InProcess, trained: tuple[Jobs, Job]) -> None:
    jobs, _ = trained
    for by in (Actor(owner="ben"), None):
        assert submitted(process, jobs, by, reuse="exact").status == Status.QUEUED


def test_workers_of_another_kind_or_none_miss(process: InProcess, trained: tuple[Jobs, Job]) -> None:
    jobs, _ = trained
    other = provenance.base_provenance() | {"numpy": "0.0.1"}
    for known in (other, None):
        here = Worker(id="w", host="h", pid=1, slots=1, running=0, draining=False, provenance=known)
        worker_registry.record_heartbeat(process.database, here)
        assert submitted(process, jobs, Actor(owner="ana"), reuse="exact").status == Status.QUEUED


@pytest.mark.parametrize("place", ["reuse_stored", "reusing"])
def test_a_web_process_that_dies_while_it_submits_leaves_nothing(
    process: InProcess, trained: tuple[Jobs, Job], place: str
) -> None:
    jobs, first = trained
    process.arm(place)
    with pytest.raises(failpoints.SimulatedKill):
        submitted(process, jobs, Actor(owner="ana"), reuse="exact")
    with process.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1
    process.check(None)  # the files are removed as orphaned
    assert submitted(process, jobs, Actor(owner="ana"), reuse="exact").reused_from == first.id


def test_a_repeated_submission_gets_the_same_answer(process: InProcess, trained: tuple[Jobs, Job]) -> None:
    jobs, _ = trained
    document = IRIS | {"reuse": "exact"}
    key = IdempotencyKey(key="mine", fingerprint="1")
    once, twice = (jobs.submit(document, by=Actor(owner="ana"), idempotency=key) for _ in range(2))
    assert once.answer == twice.answer
    process.accepted.append(once.answer["id"])
    assert {path.name for path in process.artifacts.root.glob("job_*")} == set(process.accepted)
    process.check(None)
