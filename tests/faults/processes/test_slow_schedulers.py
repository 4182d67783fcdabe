"""A scheduler whose other tasks take very long still requeues lost jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.states import Status
from tests.faults.harness import COMMITS_EACH_EPOCH, FaultHarness
from tests.waiting import wait_until
from tests.workers.conftest import kill_groups

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(400)]


def test_a_task_that_does_not_end_delays_no_rescue(harness: FaultHarness, tmp_path: Path) -> None:
    """F33."""
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    harness.patch(
        "import pathlib, time\nfrom service.sweeps import decisions\noriginal = decisions.advance_all\n"
        "def slow(*arguments, **options):\n"
        f"    pathlib.Path({str(begun)!r}).touch()\n"
        f"    while not pathlib.Path({str(ended)!r}).exists():\n"
        "        time.sleep(0.05)\n"
        "    return original(*arguments, **options)\n"
        "decisions.advance_all = slow\n",
        program="workers.scheduler",
    )
    harness.start("workers.scheduler")
    wait_until(begun.exists, "the slow task")
    harness.extra_environ |= COMMITS_EACH_EPOCH
    job_id = harness.submit()
    harness.arm("epoch_committed.1", "hang")
    worker = harness.start()
    harness.until_reached("epoch_committed.1")
    kill_groups([worker])
    requeued = harness.until(job_id, lambda job: job.status == Status.QUEUED)
    assert (requeued.attempt, requeued.lease) == (2, 1)
    assert not ended.exists()
    ended.touch()
