"""The protocol as a state machine, on a real database: workers that are slow, die, freeze and resume, users
who change their minds, and a scheduler act in any order that Hypothesis generates."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test
from sqlalchemy import event, select, update

from migrations.upgrade import upgrade
from service.errors import IllegalTransition, LeaseLost
from service.jobs import actions, commits, epoch_commits, events, leases, submissions
from service.jobs.epoch_commits import EpochRecord
from service.jobs.leases import Claim, Position
from service.jobs.queries import lookup
from service.jobs.rescue import rescue
from service.jobs.submissions import Submission
from service.spec.validation import resolve
from service.states import TERMINAL, Request, Status
from service.storage.artifacts import ArtifactKind
from service.storage.database import Database
from service.storage.stores import ArtifactFolder
from service.storage.tables import Job
from tests.faults.unfenced import remove_lease_guard
from tests.service.jobs.leases import renew

EPOCHS = 3
SPEC = {"kind": "classifier", "epochs": EPOCHS}


@dataclass
class Worker:
    """A worker that holds a claim, or believes that it does."""

    held: Claim
    epoch: int
    """The number of trained epochs in its memory."""


@dataclass
class Expected:
    """The state of a job according to the model."""

    live: int = 0
    """The lease that may write; 0 if none may."""
    ends: int = 0
    committed: set[int] = field(default_factory=set)


class Protocol(RuleBasedStateMachine):
    """Every rule is one transaction of the product; the model determines whether it must be accepted."""

    template: ClassVar[Path]
    workers = Bundle("workers")
    job_ids = Bundle("job_ids")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="tapeline-model-"))
        shutil.copy(self.template, self.folder / "tapeline.db")
        self.database = Database(f"sqlite:///{self.folder / 'tapeline.db'}")
        # No power cut is simulated, and a sync for each rule would take most of the time.
        event.listen(
            self.database.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF").close()
        )
        self.artifacts = ArtifactFolder(self.folder / "artifacts")
        self.jobs: dict[str, Expected] = {}

    def teardown(self) -> None:
        self.database.close()
        shutil.rmtree(self.folder)

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return lookup.get(session, job_id)

    def is_accepted(self, worker: Worker, write: Callable[[], Any]) -> bool:
        """Attempt a write of a worker: it must be accepted if and only if its lease is live."""
        expected = self.jobs[worker.held.job_id]
        live = expected.live == worker.held.lease
        try:
            write()
        except LeaseLost:
            assert not live, "a live lease was refused"
            return False
        assert live, "a dead lease was accepted"
        return True

    @rule(target=job_ids)
    def submit(self) -> str:
        submission = Submission(spec=SPEC, resolved=resolve(SPEC), steps=30)
        answer, _ = submissions.submit(
            self.database, [submission], idempotency=None, represent=lambda jobs: {"id": jobs[0].id}
        )
        self.jobs[answer["id"]] = Expected()
        return str(answer["id"])

    @rule(target=workers)
    def claim(self) -> Any:
        waiting = {job_id for job_id in self.jobs if self.job(job_id).status == Status.QUEUED}
        held = leases.claim(self.database, "w", 600)
        if held is None:
            assert not waiting, "a queued job cannot be claimed"
            return Worker(Claim(job_id="", lease=0, token="", lease_s=0), 0)
        assert held.job_id in waiting
        expected = self.jobs[held.job_id]
        assert held.lease > max(expected.live, 0)
        expected.live = held.lease
        with self.database.read() as session:
            checkpoints = lookup.artifacts(session, held.job_id, ArtifactKind.CHECKPOINT)
        return Worker(held, checkpoints[-1].epoch if checkpoints else 0)

    @rule(worker=workers)
    def commit_epoch(self, worker: Worker) -> None:
        if worker.held.job_id not in self.jobs or worker.epoch >= EPOCHS:
            return
        epoch = worker.epoch + 1
        lease = worker.held.lease
        data = f"weights of epoch {epoch}".encode()
        file = self.artifacts.write(worker.held.job_id, ArtifactKind.CHECKPOINT, epoch, lease, data)
        record = EpochRecord(
            epoch=epoch,
            position=Position(step=10 * epoch, steps=30),
            metrics={"train_loss": 1 / epoch},
            confusion=None,
            samples_digest=f"sha256:{epoch}",
            seconds=1.0,
            is_best=epoch == 2,
            files=[file],
        )
        removed: list[str] = []
        if self.is_accepted(worker, lambda: removed.extend(self._commit(worker, record))):
            worker.epoch = epoch
            self.jobs[worker.held.job_id].committed.add(epoch)
            self.artifacts.remove(removed)
        else:
            self.artifacts.remove([file.path])

    def _commit(self, worker: Worker, record: EpochRecord) -> list[str]:
        return epoch_commits.commit(self.database, worker.held, [record], keep_last=1)

    @rule(worker=workers)
    def renew(self, worker: Worker) -> None:
        if worker.held.job_id in self.jobs:
            self.is_accepted(worker, lambda: renew(self.database, worker.held, None))

    @rule(worker=consumes(workers))
    def succeed(self, worker: Worker) -> None:
        if worker.held.job_id not in self.jobs or worker.epoch < EPOCHS:
            return
        if self.is_accepted(worker, lambda: epoch_commits.succeed(self.database, worker.held, "sha256:x")):
            self._end_lease(worker)

    @rule(worker=workers)
    def fail(self, worker: Worker) -> None:
        if worker.held.job_id not in self.jobs:
            return
        error = {"code": "internal", "message": "m"}
        if self.is_accepted(worker, lambda: commits.fail(self.database, worker.held, error)):
            self._end_lease(worker)

    @rule(worker=workers, request=st.sampled_from([None, *Request]))
    def release_lease(self, worker: Worker, request: Request | None) -> None:
        if worker.held.job_id not in self.jobs:
            return
        if self.is_accepted(worker, lambda: leases.release_lease(self.database, worker.held, request)):
            self._end_lease(worker)

    @rule(worker=workers)
    def die(self, worker: Worker) -> None:
        """The worker lives on as a zombie that may still write."""
        if worker.held.job_id not in self.jobs:
            return
        if self.is_accepted(worker, lambda: leases.record_child_loss(self.database, worker.held, "died")):
            self._end_lease(worker)

    @rule(worker=workers)
    def lose_newest_checkpoint(self, worker: Worker) -> None:
        if worker.held.job_id not in self.jobs:
            return
        checkpoints = commits.checkpoints(self.database, worker.held)
        if checkpoints and self.jobs[worker.held.job_id].live == worker.held.lease:
            commits.drop_checkpoint(self.database, worker.held, checkpoints[0], "bits")
            worker.epoch = checkpoints[1].epoch if len(checkpoints) > 1 else 0
            self.artifacts.remove([checkpoints[0].path])

    @rule(job_id=job_ids)
    def expire_lease(self, job_id: str) -> None:
        if job_id not in self.jobs:
            return
        with self.database.write() as session:
            session.execute(
                update(Job).where(Job.id == job_id, Job.status == Status.RUNNING).values(lease_expires_ms=1)
            )
        rescued = rescue(self.database)
        assert rescued == ([job_id] if self.jobs[job_id].live else [])
        self.jobs[job_id].live = 0
        self._count_end(job_id)

    @rule(job_id=job_ids, action=st.sampled_from([actions.cancel, actions.pause, actions.resume, actions.retry]))
    def request_action(self, job_id: str, action: Callable[..., Job]) -> None:
        if job_id not in self.jobs:
            return
        before = self.job(job_id)
        legal = action.__name__ in actions.actions_of(before)
        try:
            action(self.database, job_id)
        except IllegalTransition:
            assert not legal
            return
        assert legal
        self._count_end(job_id, before=before)

    @rule(job_id=job_ids)
    def delete(self, job_id: str) -> None:
        if job_id not in self.jobs:
            return
        legal = "delete" in actions.actions_of(self.job(job_id))
        try:
            actions.remove(self.database, job_id)
        except IllegalTransition:
            assert not legal
            return
        assert legal
        self.artifacts.remove_folder(job_id)
        del self.jobs[job_id]

    def _end_lease(self, worker: Worker) -> None:
        self.jobs[worker.held.job_id].live = 0
        self._count_end(worker.held.job_id)

    def _count_end(self, job_id: str, before: Job | None = None) -> None:
        after = self.job(job_id)
        if after.status in TERMINAL and (before is None or before.status not in TERMINAL):
            log = self._log(job_id)
            self.jobs[job_id].ends = sum(kind == "end" for kind, _ in log)

    def _log(self, job_id: str) -> list[tuple[str, dict[str, Any]]]:
        with self.database.read() as session:
            return [(item.type, item.data) for item in events.read(session, job_id, limit=10_000)]

    @invariant()
    def invariants_hold(self) -> None:
        with self.database.read() as session:
            rows = session.scalars(select(Job)).all()
            assert {row.id for row in rows} == set(self.jobs)
            for job in rows:
                expected = self.jobs[job.id]
                log = events.read(session, job.id, limit=10_000)
                assert [item.seq for item in log] == list(range(1, job.last_seq + 1))
                assert (job.status == Status.RUNNING) == bool(expected.live)
                assert (job.lease_owner is None) == (job.status != Status.RUNNING)
                ends = [item for item in log if item.type == "end"]
                retries = [item for item in log if item.type == "status" and item.data["reason"] == "retried"]
                assert len(ends) - len(retries) == (job.status in TERMINAL)
                assert not [item for item in log if item.data.get("code") == "determinism_violation"]
                assert {row.epoch for row in lookup.epochs(session, job.id)} == expected.committed
                assert job.epoch == max(expected.committed, default=0)
                for row in lookup.artifacts(session, job.id):
                    assert (self.artifacts.root / row.path).exists()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "tapeline.db"
    with closing(Database(f"sqlite:///{path}")) as database:
        upgrade(database)
    return path


def run(template: Path, *, examples: int, steps: int) -> None:
    Protocol.template = template
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Protocol,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            suppress_health_check=list(HealthCheck),
            database=None,
            report_multiple_bugs=False,
        ),
    )


def test_no_order_of_events_breaks_the_protocol(template: Path) -> None:
    run(template, examples=15, steps=25)


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_no_order_of_events_breaks_the_protocol_in_long_runs(template: Path) -> None:
    run(template, examples=150, steps=60)


ZOMBIE_WRITES: dict[str, Callable[[Protocol, Worker], None]] = {
    "renews": Protocol.renew,
    "commits an epoch": Protocol.commit_epoch,
    "fails": Protocol.fail,
    "releases": lambda machine, worker: machine.release_lease(worker, None),
    "dies": Protocol.die,
}


@pytest.mark.parametrize("write", ZOMBIE_WRITES.values(), ids=ZOMBIE_WRITES)
@pytest.mark.parametrize("fenced", [True, False], ids=["fenced", "unfenced"])
def test_a_zombie_can_write_only_without_the_lease_guard(
    template: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Protocol, Worker], None], fenced: bool
) -> None:
    """Deliberate defect: if writes check only whether the job is running, a dead lease is accepted."""
    if not fenced:
        remove_lease_guard(monkeypatch, keeps_status=True)
    monkeypatch.setattr(Protocol, "template", template, raising=False)
    machine = Protocol()
    try:
        job_id = machine.submit()
        zombie = machine.claim()
        machine.expire_lease(job_id)
        machine.claim()
        with nullcontext() if fenced else pytest.raises(AssertionError, match="a dead lease was accepted"):
            write(machine, zombie)
        if fenced:
            machine.invariants_hold()
    finally:
        machine.teardown()
