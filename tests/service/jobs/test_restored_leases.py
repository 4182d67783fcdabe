"""Leases on a database that went back in time under running workers: their numbers are issued again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from service.errors import LeaseLost
from service.jobs import epoch_commits, leases
from service.jobs.leases import Claim
from service.states import Status
from service.storage.database import Database
from tests.restored import copied
from tests.service.jobs.conftest import Submit, claim, commit, log, read_job, record
from tests.service.jobs.leases import WRITES, renew


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_of_two_workers_with_the_same_lease_number_one_writes(
    database: Database, submit: Submit, write: Callable[[Database, Claim], object]
) -> None:
    job_id = submit()
    restore = copied(database)
    lost = claim(database, "before")
    restore()
    held = claim(database, "after")
    assert (lost.job_id, lost.lease) == (held.job_id, held.lease)
    before = log(database, job_id)
    with pytest.raises(LeaseLost):
        write(database, lost)
    assert log(database, job_id) == before
    write(database, held)


def test_a_claim_that_is_issued_again_is_not_the_acknowledged_one(database: Database, submit: Submit) -> None:
    job_id = submit()
    restore = copied(database)
    acknowledged = claim(database)
    restore()
    unacknowledged = claim(database)
    assert leases.release_unacknowledged_claims(database, "w", [unacknowledged]) == []
    assert leases.release_unacknowledged_claims(database, "w", [acknowledged]) == [job_id]
    assert read_job(database, job_id).status == Status.QUEUED


@pytest.mark.parametrize(
    "write",
    [
        lambda database, held: commit(database, held, record(3)),
        lambda database, held: epoch_commits.succeed(database, held, "sha256:x", epoch=3, records=[record(3)]),
        lambda database, held: epoch_commits.succeed(database, held, "sha256:x", epoch=2),
    ],
    ids=["commits", "commits and ends", "ends"],
)
def test_epochs_that_the_database_has_lost_are_not_left_out(
    database: Database, submit: Submit, write: Callable[[Database, Claim], object]
) -> None:
    job_id = submit()
    held = claim(database)
    commit(database, held, record(1))
    restore = copied(database)
    commit(database, held, record(2))
    restore()
    assert renew(database, held) is None, "the copy has its lease"
    with pytest.raises(LeaseLost):
        write(database, held)
    job = read_job(database, job_id)
    assert (job.status, job.epoch) == (Status.RUNNING, 1)


def test_the_token_of_a_claim_is_not_logged(database: Database, submit: Submit) -> None:
    submit()
    held = claim(database)
    assert len(held.token) == 32
    assert held.token not in repr(held)
    assert held.token not in str(held.log_fields | held.span_attributes)
    assert held.token not in str(log(database, held.job_id))
