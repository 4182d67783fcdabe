"""The invariants notice what they claim to check."""

from __future__ import annotations

import pytest

from service.jobs import actions, epoch_commits, events
from service.jobs.events import EventType
from service.jobs.request_bodies import JobPatch
from service.storage.tables import Job
from tests.faults.conftest import InProcessHarness


def end(process: InProcessHarness) -> str:
    """Submit a job, and end it at once."""
    job_id = process.submit()
    epoch_commits.succeed(process.database, process.claim(), "sha256:x")
    return job_id


def test_after_its_end_a_job_may_be_renamed_and_nothing_else(process: InProcessHarness) -> None:
    job_id = end(process)
    actions.change(process.database, job_id, JobPatch(name="kept", starred=True))
    process.check(None)
    with process.database.write() as session:
        events.append(session, job_id, [(EventType.METRICS, {"epoch": 1})])
    with pytest.raises(AssertionError, match=r"I3: .* continues after its end"):
        process.check(None)


def test_a_size_that_differs_from_the_rows_is_noticed(process: InProcessHarness) -> None:
    job_id = end(process)
    with process.database.write() as session:
        session.get_one(Job, job_id).size_bytes += 1
    with pytest.raises(AssertionError, match="I11: "):
        process.check(None)
