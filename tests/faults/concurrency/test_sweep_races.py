"""Users, workers and schedulers change the jobs of a sweep at the same time."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import func, select, text

from service.errors import IllegalSweepAction, IllegalTransition
from service.jobs import actions as job_actions
from service.jobs import epoch_commits, events, leases
from service.jobs.epoch_commits import EpochRecord
from service.jobs.leases import Claim, Position
from service.states import SWEEP_ENDED, Status, SweepStatus
from service.storage.database import Database
from service.storage.sweep_tables import Sweep, SweepTrial
from service.storage.tables import Job
from service.sweeps import actions as sweep_actions
from service.sweeps import decisions
from tests.faults.conftest import InProcessHarness, open_in_process
from tests.faults.sweeps.runs import RANDOM, submit
from tests.service.jobs.leases import requested
from tests.waiting import wait_until

SWEEP = RANDOM | {
    "base": {"kind": "classifier", "epochs": 4, "layers": [{"units": 10, "activation": "softmax"}]},
    "space": {"/optimizer/learning_rate": {"log": [0.003, 0.3]}},
    "seeds": [0],
}
OPERATIONS = 500
ONE_RUNG = SWEEP | {"search": {"name": "random", "trials": 3, "seed": 7}, "halving": {"min_epochs": 1, "factor": 3}}


def train_one(database: Database) -> bool:
    """Train the next job until it is held, ends or is asked to stop, as a worker does; return whether there was one."""
    held = leases.claim(database, "simulated", 600.0)
    if held is None:
        return False
    leases.begin(database, held, {})
    with database.read() as session:
        job = session.get_one(Job, held.job_id)
    for epoch in range(job.epoch + 1, job.epochs + 1):
        if request := requested(database, held):
            leases.release_lease(database, held, request)
            return True
        if commit(database, held, job, epoch):
            return True
    epoch_commits.succeed(database, held, f"sha256:{held.job_id}", then=decisions.after_result)
    return True


def commit(database: Database, held: Claim, job: Job, epoch: int) -> bool:
    """Commit an epoch whose accuracy depends on the trial; return whether the job is held."""
    record = EpochRecord(
        epoch=epoch,
        position=Position(step=epoch, steps=job.epochs),
        metrics={"val_accuracy": round(0.5 + job.resolved["optimizer"]["learning_rate"] / 10 + epoch / 100, 6)},
        confusion=None,
        samples_digest=None,
        seconds=0.1,
        is_best=False,
        files=[],
        goes_on=epoch < job.epochs,
    )
    epoch_commits.commit(database, held, [record], keep_last=3, then=decisions.after_result)
    return record.is_paused_by_sweep(job.hold_epoch)


def run_to_the_end(database: Database) -> None:
    """Train and decide until nothing is left to do, as a worker and a scheduler."""
    while train_one(database) or decisions.advance_all(database):
        pass
    decisions.advance_all(database)


def jobs_of(database: Database, sweep_id: str) -> list[Job]:
    with database.read() as session:
        return list(session.scalars(select(Job).where(Job.sweep_id == sweep_id).order_by(Job.trial)))


def status(database: Database, sweep_id: str) -> str:
    with database.read() as session:
        return str(session.scalar(select(Sweep.status).where(Sweep.id == sweep_id)))


def count_queued(database: Database, sweep_id: str) -> int:
    return sum(job.status == Status.QUEUED for job in jobs_of(database, sweep_id))


def assert_each_job_ended_once(database: Database, sweep_id: str) -> None:
    for job in jobs_of(database, sweep_id):
        with database.read() as session:
            kinds = [event.type for event in events.read(session, job.id, limit=10_000)]
        assert (kinds.count("end"), kinds[-1]) == (1, "end"), f"{job.id} ({job.status}): {kinds}"


class TestWithATransactionHeldOpen:
    """Each test holds a user's transaction open, and starts a decision meanwhile."""

    @pytest.fixture
    def process(self, request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[InProcessHarness]:
        yield from open_in_process(tmp_path / "home", request.getfixturevalue("private_postgres_url"))

    @pytest.fixture
    def held_sweep(self, process: InProcessHarness, monkeypatch: pytest.MonkeyPatch) -> str:
        """A sweep whose three jobs are held at the first rung, and whose decision is due."""
        monkeypatch.setattr(decisions, "after_result", lambda session, job: None)
        sweep_id = submit(process.workers, ONE_RUNG)
        while train_one(process.database):
            pass
        assert [job.status for job in jobs_of(process.database, sweep_id)] == [Status.PAUSED] * 3
        return sweep_id

    @contextmanager
    def held_open(
        self,
        process: InProcessHarness,
        monkeypatch: pytest.MonkeyPatch,
        module: ModuleType,
        operation: Callable[[], Any],
    ) -> Iterator[Callable[[Callable[[], Any]], Future[Any]]]:
        """Run ``operation`` until it has recorded itself in the audit log (of jobs) or in the events (of sweeps), and
        yield a function that starts a rival. Then it continues once the rival has ended or waits for a lock."""
        reached, released = threading.Event(), threading.Event()
        owner, name = (module.audit, "record") if module is job_actions else (module.events, "record_status")
        original = getattr(owner, name)

        def wait(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if threading.current_thread() is first_thread:
                reached.set()
                released.wait()
            return result

        def is_waiting() -> bool:
            with process.database.read() as session:
                return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))

        first_thread = threading.Thread(target=operation)
        monkeypatch.setattr(owner, name, wait)
        with ThreadPoolExecutor(1) as pool:
            first_thread.start()
            reached.wait()
            rivals: list[Future[Any]] = []

            def start(rival: Callable[[], Any]) -> Future[Any]:
                rivals.append(pool.submit(rival))
                return rivals[-1]

            try:
                yield start
                wait_until(lambda: is_waiting() or rivals[0].done(), "the rival")
            finally:
                released.set()
                first_thread.join()
            rivals[0].result()

    def ranked(self, process: InProcessHarness, sweep_id: str) -> list[Job]:
        return sorted(
            jobs_of(process.database, sweep_id),
            key=lambda job: float(job.resolved["optimizer"]["learning_rate"]),
            reverse=True,
        )

    def test_a_loser_that_is_cancelled_while_its_sweep_decides_ends_once(
        self, process: InProcessHarness, held_sweep: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loser = self.ranked(process, held_sweep)[-1]
        cancel = partial(job_actions.cancel, process.database, loser.id)
        with self.held_open(process, monkeypatch, job_actions, cancel) as start:
            start(lambda: decisions.advance_all(process.database))
        run_to_the_end(process.database)
        assert status(process.database, held_sweep) == SweepStatus.SUCCEEDED
        assert_each_job_ended_once(process.database, held_sweep)

    def test_the_best_job_does_not_win_if_it_is_cancelled_while_its_sweep_decides(
        self, process: InProcessHarness, held_sweep: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        best, second, _ = self.ranked(process, held_sweep)
        cancel = partial(job_actions.cancel, process.database, best.id)
        with self.held_open(process, monkeypatch, job_actions, cancel) as start:
            start(lambda: decisions.advance_all(process.database))
        run_to_the_end(process.database)
        assert_each_job_ended_once(process.database, held_sweep)
        with process.database.read() as session:
            sweep = session.get_one(Sweep, held_sweep)
            assert (sweep.status, sweep.best_trial, sweep.failed_trials) == (SweepStatus.SUCCEEDED, second.trial, 1)
            assert session.get_one(Job, best.id).epoch == 1
            assert session.get_one(SweepTrial, (held_sweep, best.trial)).status == "failed"

    def test_a_worker_leaves_the_decision_to_the_scheduler_if_a_job_is_locked(
        self, process: InProcessHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sweep_id = submit(process.workers, ONE_RUNG | {"seeds": [0, 1]})
        for _ in range(5):
            assert train_one(process.database)
        first = jobs_of(process.database, sweep_id)[0]
        cancel = partial(job_actions.cancel, process.database, first.id)
        with self.held_open(process, monkeypatch, job_actions, cancel) as start:
            assert start(lambda: train_one(process.database)).result(60)
        assert status(process.database, sweep_id) == SweepStatus.RUNNING
        run_to_the_end(process.database)
        assert_each_job_ended_once(process.database, sweep_id)

    def test_a_job_that_pauses_late_is_not_queued_while_its_sweep_is_paused_again(
        self, process: InProcessHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sweep_id = submit(process.workers, SWEEP)
        held = leases.claim(process.database, "simulated", 600.0)
        assert held is not None
        sweep_actions.pause(process.database, sweep_id, owner=None, by=None)
        sweep_actions.resume(process.database, sweep_id, owner=None, by=None)
        leases.release_lease(process.database, held, requested(process.database, held))
        pause = partial(sweep_actions.pause, process.database, sweep_id, owner=None, by=None)
        with self.held_open(process, monkeypatch, sweep_actions, pause) as start:
            start(lambda: sweep_actions.requeue_stragglers(process.database))
        assert status(process.database, sweep_id) == SweepStatus.PAUSED
        assert count_queued(process.database, sweep_id) == 0
        sweep_actions.resume(process.database, sweep_id, owner=None, by=None)
        assert count_queued(process.database, sweep_id) == 3


class User:
    """Cancels jobs, and pauses, resumes and cancels sweeps, at random."""

    def __init__(self, process: InProcessHarness, rng: random.Random) -> None:
        self.process, self.database, self.rng = process, process.database, rng
        self.operations = 0
        self.sweep_ids: list[str] = []

    def act(self) -> None:
        if not self.sweep_ids or status(self.database, self.sweep_ids[-1]) in SWEEP_ENDED:
            self.sweep_ids.append(submit(self.process.workers, SWEEP))
        sweep_id = self.sweep_ids[-1]
        with suppress(IllegalTransition, IllegalSweepAction):
            if self.rng.random() < 0.4:
                unfinished = [job for job in jobs_of(self.database, sweep_id) if job.finished_ms is None]
                if unfinished:
                    job_actions.cancel(self.database, self.rng.choice(unfinished).id)
                    self.operations += 1
                return
            sweep_actions.pause(self.database, sweep_id, owner=None, by=None)
            assert count_queued(self.database, sweep_id) == 0, "the pause has left a queued job"
            if self.rng.random() < 0.5:
                threading.Event().wait(self.rng.uniform(0, 0.03))  # lets workers notice
            assert count_queued(self.database, sweep_id) == 0, "a job of a paused sweep was queued"
            sweep_actions.resume(self.database, sweep_id, owner=None, by=None)
            self.operations += 2


@pytest.mark.nightly
@pytest.mark.parametrize("process", ["postgresql"], indirect=True)
def test_no_random_cancel_pause_or_resume_breaks_a_sweep(process: InProcessHarness) -> None:
    """F23: two workers and two schedulers run sweeps, and a user disturbs them."""
    database, user, stopping = process.database, User(process, random.Random(1)), threading.Event()

    def advance() -> bool:
        sweep_actions.requeue_stragglers(database)
        return bool(decisions.advance_all(database))

    def repeat(work: Callable[[], bool]) -> None:
        while not stopping.is_set():
            if not work():
                stopping.wait(0.002)

    with ThreadPoolExecutor(4) as pool:
        loops = [pool.submit(repeat, work) for work in (lambda: train_one(database), advance) for _ in range(2)]
        try:
            while user.operations < OPERATIONS and not any(loop.done() for loop in loops):
                user.act()
            wait_until(
                lambda: status(database, user.sweep_ids[-1]) in SWEEP_ENDED or any(loop.done() for loop in loops),
                "the last sweep",
                60,
            )
        finally:
            stopping.set()
        for loop in loops:
            loop.result()
    assert user.operations >= OPERATIONS
    for sweep_id in user.sweep_ids:
        assert_each_job_ended_once(database, sweep_id)
        with database.read() as session:
            sweep = session.get_one(Sweep, sweep_id)
            cancelled = select(func.count()).where(Job.sweep_id == sweep_id, Job.status == Status.CANCELLED)
            assert sweep.status in (SweepStatus.SUCCEEDED, SweepStatus.FAILED)
            if sweep.best_trial is not None:
                best = session.get_one(SweepTrial, (sweep_id, sweep.best_trial))
                assert best.status == "succeeded" or session.scalar(cancelled)
