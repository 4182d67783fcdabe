"""What a worker counts is in its row."""

from __future__ import annotations

from service.jobs import worker_registry
from tests.waiting import wait_until
from tests.workers.conftest import WorkerHarness


def test_the_commits_of_epochs_are_counted(running: WorkerHarness) -> None:
    def totals() -> dict[str, float]:
        with running.database.read() as session:
            found = next((worker.totals for worker in worker_registry.live_workers(session)), None)
        found = found or {"commits": [0], "commit_seconds": 0.0}
        return {"commits": sum(found["commits"]), "seconds": found["commit_seconds"]}

    before = totals()
    running.until_end(running.submit(epochs=3))
    # Epochs may share a commit, with each other and with the result.
    wait_until(lambda: before["commits"] + 1 <= totals()["commits"] <= before["commits"] + 4, "the next heartbeat")
    assert totals()["seconds"] > before["seconds"]
