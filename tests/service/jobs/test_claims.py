"""Claims at the same time: of workers that pass over owners, or wait for one."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from service.jobs import leases
from service.states import Status
from service.storage.database import Database
from service.storage.tables import Job
from tests.conftest import postgresql_only
from tests.service.jobs.conftest import Submit
from tests.service.jobs.fairness.test_owner_queue import owner_of
from tests.waiting import wait_until


def test_workers_that_lack_folders_do_not_wait_for_each_other(database: Database, submit: Submit) -> None:
    """Each holds the rows of the owners that it has passed over."""
    for owner in ("ann", "bob", "carl"):
        for _ in range(15):
            submit(owner=owner, dataset="ours", priority=5)
            submit(owner=owner)

    def work(worker: str) -> int:
        claimed = 0
        for _ in range(60):
            claimed += leases.claim(database, worker, 60, datasets=["mnist-10k"]) is not None
        return claimed

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(work, ("a", "b", "c"))) <= 45
    while leases.claim(database, "d", 60, datasets=["mnist-10k"]) is not None:
        pass
    with database.read() as session:
        running = session.scalar(select(func.count()).where(Job.status == Status.RUNNING))
    assert running == 45


@postgresql_only
def test_a_claim_that_waits_for_an_owner_locks_no_other(database: Database, submit: Submit) -> None:
    """Two of them, which lock owners in different orders, would wait for each other."""
    for owner in ("ann", "bob"):
        submit(owner=owner)
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")

    def lock(session: Session, owner: str, options: str = "") -> None:
        session.execute(text(f"SELECT 1 FROM owner_queue WHERE owner = :owner FOR UPDATE {options}"), {"owner": owner})

    def is_waiting() -> bool:
        with database.read() as session:
            return bool(session.scalar(waiting))

    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as of_bob:
        lock(of_bob.enter_context(database.write()), "bob")
        with database.write() as of_ann:
            lock(of_ann, "ann")
            claimed = pool.submit(leases.claim, database, "w", 60)
            wait_until(is_waiting, "the claim to wait for ann")
            of_ann.execute(update(Job).where(Job.owner == "ann").values(status=Status.CANCELLED))
        wait_until(lambda: not claimed.done() and is_waiting(), "the claim to wait for bob")
        with database.write() as session:
            lock(session, "ann", "NOWAIT")
        of_bob.close()
        held = claimed.result(60)
    assert held is not None
    assert owner_of(database, held) == "bob"
