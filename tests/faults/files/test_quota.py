"""A job whose files do not fit into the quota of its owner fails, keeps what it has, and continues after a retry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from service.access import storage_quota
from service.jobs import actions, epoch_commits
from service.jobs.leases import Claim
from service.owner_limits import Quotas
from service.schema import costs
from service.schema.layer_shapes import Shape
from service.spec.estimation.networks import networks
from service.spec.validation import read_resolved
from service.states import Action, Status
from service.storage.tables import Job
from tests.faults.conftest import InProcessHarness, NoSupervisor, replace_operation
from tests.faults.harness import FEW
from tests.faults.reproducibility.results import result
from workers.training import limits, run
from workers.training.epochs import writer

KEEPS_ALL: dict[str, Any] = {"checkpoint": {"keep_last": 9}, "reuse": "never"}


def submit(process: InProcessHarness, **spec: Any) -> str:
    job_id = process.submit(**KEEPS_ALL | spec)
    with process.database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(owner="ann"))
    return job_id


def train(process: InProcessHarness, quota: int, held: Claim | None = None) -> str:
    settings = replace(process.workers.settings, quotas=Quotas(artifacts=quota))
    try:
        return run.train(settings, held or process.claim(), NoSupervisor(process.database))
    finally:
        limits.lift_memory_limit()


def stored(process: InProcessHarness) -> int:
    with process.database.read() as session:
        return storage_quota.read(session, "ann").stored


def test_a_job_stops_at_the_quota_and_continues_after_space_was_freed(process: InProcessHarness) -> None:
    first = submit(process)
    assert train(process, 0) == "succeeded"
    undisturbed = process.workers.job(first)
    expected = result(process, undisturbed)
    quota = stored(process) + undisturbed.size_bytes // 2  # room for one of three epochs
    second = submit(process)
    assert train(process, quota) == "failed"
    job = process.workers.job(second)
    assert (job.status, job.epoch) == (Status.FAILED, 1)
    assert job.error is not None
    assert job.error["code"] == "storage_quota"
    assert f"of {quota:,} bytes (TAPELINE_OWNER_ARTIFACTS)" in job.error["message"]
    assert "the last checkpoint is kept" in job.error["hint"]
    assert Action.RETRY in actions.actions_of(job)
    assert stored(process) <= quota
    process.check(None)  # no file without a row is left
    actions.retry(process.database, second)
    assert train(process, quota) == "failed", "nothing was freed"
    assert process.workers.job(second).epoch == 1
    actions.remove(process.database, first)
    process.artifacts.remove_folder(first)
    process.accepted.remove(first)
    actions.retry(process.database, second)
    assert train(process, quota) == "succeeded"
    job = process.workers.job(second)
    assert result(process, job) == expected, "the same bits as an undisturbed job"
    process.check(None)


def test_the_files_of_a_reused_result_count_and_are_removed_if_they_do_not_fit(process: InProcessHarness) -> None:
    submit(process)
    assert train(process, 0) == "succeeded"
    quota = stored(process)
    second = submit(process, reuse="exact")
    assert train(process, quota) == "failed"
    job = process.workers.job(second)
    assert ((job.error or {})["code"], job.size_bytes, job.epoch) == ("storage_quota", 0, 0)
    process.check(None)
    actions.retry(process.database, second)
    assert train(process, 2 * quota) == "succeeded"
    job = process.workers.job(second)
    assert (job.reused_epochs, stored(process)) == (3, 2 * quota)


def test_a_held_job_that_does_not_fit_fails_instead_of_waiting_for_its_sweep(process: InProcessHarness) -> None:
    job_id = submit(process)
    with process.database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(hold_epoch=1))
    assert train(process, 1) == "failed"
    job = process.workers.job(job_id)
    assert ((job.error or {})["code"], job.epoch, job.size_bytes) == ("storage_quota", 0, 0)
    process.check(None)


@pytest.mark.parametrize("checkpoint", [{}, {"keep_last": 1}, {"keep_last": 9}], ids=["default", "few", "all"])
def test_a_job_stores_at_most_what_is_expected_and_not_much_less(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch, checkpoint: dict[str, int]
) -> None:
    commit_epoch, sizes = epoch_commits.commit, list[int]()

    def observed(*arguments: Any, **options: Any) -> list[str]:
        orphans = commit_epoch(*arguments, **options)
        sizes.append(stored(process))
        return orphans

    replace_operation(monkeypatch, epoch_commits.commit, observed)
    job_id = submit(process, checkpoint=checkpoint, epochs=6)
    assert train(process, 0) == "succeeded"
    spec = read_resolved(process.workers.job(job_id).resolved)
    shape = Shape(rows=28, columns=28, classes=10, train_count=FEW)
    expected = costs.expected_bytes(spec, networks(spec, shape), shape)
    assert len(sizes) == 6
    assert expected / 3 < max(sizes) <= expected


def test_of_short_epochs_that_share_a_commit_as_many_are_kept_as_fit(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = submit(process, epochs=4)
    assert train(process, 0) == "succeeded"
    undisturbed = process.workers.job(first)
    batches: list[int] = []
    commit_epochs = epoch_commits.commit

    def observed(*arguments: Any, **options: Any) -> list[str]:
        batches.append(len(arguments[2]))
        return commit_epochs(*arguments, **options)

    replace_operation(monkeypatch, epoch_commits.commit, observed)
    monkeypatch.setattr(writer, "COMMIT_INTERVAL_S", 600.0)
    monkeypatch.setattr(writer, "SOON_S", -1.0)
    quota = stored(process) + undisturbed.size_bytes * 5 // 8  # room for two of four epochs
    second = submit(process, epochs=4)
    assert train(process, quota) == "failed"
    job = process.workers.job(second)
    assert job.error is not None
    assert (job.error["code"], job.epoch) == ("storage_quota", 2)
    assert batches == [1, 3, 1, 2, 1], (
        "the first one, the others without the result, one that fits, the rest, then none"
    )
    process.check(None)  # no file without a row is left
