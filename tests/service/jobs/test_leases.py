from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, update

from service.errors import LeaseLost
from service.jobs import actions, commits, events, leases, worker_registry
from service.jobs.commits import EpochRecord
from service.jobs.leases import Claim, Position
from service.jobs.queries import lookup
from service.jobs.rescue import rescue
from service.spec.findings import Finding
from service.states import FindingCode, Request, Severity, Status
from service.storage.artifacts import ArtifactFolder, ArtifactKind, StoredFile
from service.storage.database import Database
from service.storage.tables import Artifact, Job, Worker

Submit = Callable[..., str]


def claim(database: Database, worker: str = "w", lease_s: float = 15) -> Claim:
    held = leases.claim(database, worker, lease_s)
    assert held is not None
    return held


def record(
    epoch: int,
    *,
    files: tuple[StoredFile, ...] = (),
    is_best: bool = False,
    loss: float | None = None,
    health: tuple[Finding, ...] = (),
) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        position=Position(step=10 * epoch, steps=40, steps_per_second=5.0),
        metrics={"train_loss": 1 / epoch if loss is None else loss},
        confusion=[[1, 0], [0, 1]],
        samples_digest=f"sha256:{epoch}",
        seconds=0.5,
        is_best=is_best,
        files=files,
        health=health,
    )


def finding(epoch: int, code: FindingCode = FindingCode.OVERFITTING) -> Finding:
    numbers = {"val_loss": 0.1 + 0.2}
    return Finding(code=code, severity=Severity.WARNING, epoch=epoch, message="m", numbers=numbers, advice=["a"])


def commit(database: Database, held: Claim, done: EpochRecord, keep_last: int = 3) -> list[str]:
    return commits.commit_epoch(database, held, done, keep_last=keep_last)


def look(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return lookup.get(session, job_id)


def log(database: Database, job_id: str) -> list[tuple[str, dict[str, Any]]]:
    with database.read() as session:
        found = events.read(session, job_id)
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    return [(event.type, event.data) for event in found]


def reasons(database: Database, job_id: str) -> list[str]:
    return [data["reason"] for kind, data in log(database, job_id) if kind == "status"]


def test_an_epoch_that_is_committed_during_the_next_one_takes_no_reported_batch_back(
    database: Database, submit: Submit
) -> None:
    job_id = submit()
    held = claim(database)
    leases.renew(database, held, Position(step=13, steps=40))
    commit(database, held, record(1))
    assert (look(database, job_id).epoch, look(database, job_id).step) == (1, 13)
    commit(database, held, record(2))
    assert look(database, job_id).step == 20


def test_nothing_waits_nothing_is_claimed(database: Database) -> None:
    assert leases.claim(database, "w", 15) is None


def test_the_highest_priority_goes_first_then_the_oldest(database: Database, submit: Submit) -> None:
    ids = {name: submit(priority=priority) for name, priority in [("old", 5), ("low", 0), ("high", 9), ("new", 5)]}
    order = [claim(database).job_id for _ in ids]
    assert order == [ids[name] for name in ("high", "old", "new", "low")]


def test_a_claim_takes_the_next_lease_number_and_never_the_same_twice(database: Database, submit: Submit) -> None:
    submit()
    numbers = []
    for _ in range(3):
        held = claim(database)
        numbers.append(held.lease)
        leases.hand_back(database, held, None)
    assert numbers == [1, 2, 3]


def test_many_workers_at_once_claim_each_job_once(database: Database, submit: Submit) -> None:
    wanted = {submit() for _ in range(20)}
    claimed: list[str] = []

    def work(name: str) -> None:
        while (held := leases.claim(database, name, 15)) is not None:
            claimed.append(held.job_id)

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while (held := leases.claim(database, "last", 15)) is not None:  # rows that were locked at that moment
        claimed.append(held.job_id)
    assert sorted(claimed) == sorted(wanted)


WRITES: dict[str, Callable[[Database, Claim], object]] = {
    "begin": lambda database, held: leases.begin(database, held, {}),
    "renew": lambda database, held: leases.renew(database, held, None),
    "requested": leases.requested,
    "commit_epoch": lambda database, held: commit(database, held, record(1)),
    "log": lambda database, held: commits.log(database, held, "info", "c", "m"),
    "succeed": lambda database, held: commits.succeed(database, held, "sha256:x"),
    "fail": lambda database, held: commits.fail(database, held, {"code": "internal", "message": "m"}),
    "hand_back": lambda database, held: leases.hand_back(database, held, None),
    "report_death": lambda database, held: leases.report_death(database, held, "m"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_worker_whose_job_went_to_another_writes_nothing(
    database: Database, submit: Submit, write: Callable[[Database, Claim], object]
) -> None:
    job_id = submit()
    stale = claim(database, "slow")
    leases.report_death(database, stale, "gone")
    current = claim(database, "quick")
    before = log(database, job_id)
    with pytest.raises(LeaseLost):
        write(database, stale)
    assert log(database, job_id) == before
    assert leases.renew(database, current, None) is None


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_after_the_end_nothing_is_written(
    database: Database, submit: Submit, write: Callable[[Database, Claim], object]
) -> None:
    job_id = submit()
    held = claim(database)
    commits.succeed(database, held, "sha256:done")
    before = log(database, job_id)
    with pytest.raises(LeaseLost):
        write(database, held)
    assert log(database, job_id) == before
    assert [kind for kind, _ in before].count("end") == 1


def test_an_early_stop_is_a_success_with_its_reason(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    for epoch in (1, 2):
        commit(database, held, record(epoch))
    why = {"metric": "val_loss", "best": 0.25, "best_epoch": 1, "patience": 1}
    commits.succeed(database, held, "sha256:done", stopped_early=why)
    job = look(database, job_id)
    assert (job.status, job.epoch, job.epochs, job.stopped_early) == (Status.SUCCEEDED, 2, 4, why)
    assert job.step == job.steps == 20  # nothing is left to do
    last = log(database, job_id)[-3:]
    assert [kind for kind, _ in last] == ["log", "status", "end"]
    assert last[0][1]["code"] == "stopped_early"
    assert last[0][1]["message"] == (
        "stopped after epoch 2 of 4: val_loss was best in epoch 1 (0.25), and not better for 1 epoch"
    )


def test_an_epoch_commit_is_one_whole(database: Database, submit: Submit, tmp_path: Path) -> None:
    job_id, store = submit(), ArtifactFolder(tmp_path / "artifacts")
    held = claim(database)
    files = (
        store.write(job_id, ArtifactKind.CHECKPOINT, 1, held.lease, b"weights"),
        store.write(job_id, ArtifactKind.SAMPLE, 1, held.lease, b"picture"),
    )
    assert commit(database, held, record(1, files=files, is_best=True)) == []
    job = look(database, job_id)
    assert (job.epoch, job.step, job.best_epoch, job.metrics) == (1, 10, 1, {"train_loss": 1.0})
    assert [kind for kind, _ in log(database, job_id)][-3:] == ["metrics", "checkpoint", "sample"]
    with database.read() as session:
        assert lookup.checkpoint(session, job, "best").sha256 == files[0].sha256
        assert lookup.checkpoint(session, job, "1").path == files[0].path
        assert lookup.sample(session, job, "latest").path == files[1].path


def test_the_last_checkpoints_and_the_best_are_kept(database: Database, submit: Submit, tmp_path: Path) -> None:
    job_id, store = submit(), ArtifactFolder(tmp_path / "artifacts")
    held = claim(database)
    for epoch in range(1, 7):
        file = store.write(job_id, ArtifactKind.CHECKPOINT, epoch, held.lease, b"%d" % epoch)
        store.remove(commit(database, held, record(epoch, files=(file,), is_best=epoch <= 2), keep_last=2))
    with database.read() as session:
        kept = lookup.artifacts(session, job_id)
    assert [row.epoch for row in kept] == [2, 5, 6]
    on_disk = {str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file()}
    assert on_disk == {row.path for row in kept}


def test_the_checkpoints_that_are_kept_do_not_slow_an_epoch_down(
    database: Database, submit: Submit, tmp_path: Path
) -> None:
    job_id, store = submit(), ArtifactFolder(tmp_path / "artifacts")
    held = claim(database)
    rows: list[Artifact] = []

    def collect(row: Artifact, _: object) -> None:
        rows.append(row)

    event.listen(Artifact, "load", collect)
    for epoch in range(1, 41):
        file = store.write(job_id, ArtifactKind.CHECKPOINT, epoch, held.lease, b"%d" % epoch)
        commit(database, held, record(epoch, files=(file,)), keep_last=30)
    event.remove(Artifact, "load", collect)
    assert len(rows) == 10, "only those that go are read"
    with database.read() as session:
        assert [row.epoch for row in lookup.artifacts(session, job_id)] == list(range(11, 41))


def test_an_epoch_trained_again_must_give_the_stored_metrics(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    commit(database, held, record(1))
    before = log(database, job_id)
    commit(database, held, record(1))
    assert log(database, job_id) == before
    commit(database, held, record(1, loss=math.nextafter(1.0, 2.0)))
    kind, data = log(database, job_id)[-1]
    assert (kind, data["code"], data["level"]) == ("log", "determinism_violation", "error")


def test_what_was_finished_once_stays_finished(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    for epoch in (1, 2, 3):
        commit(database, held, record(epoch))
    leases.report_death(database, held, "killed")
    commit(database, claim(database), record(2))  # the checkpoint was an older one
    job = look(database, job_id)
    assert (job.epoch, job.step, job.metrics) == (3, 30, {"train_loss": 1 / 3})


def test_metrics_come_back_bit_for_bit(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    value = math.nextafter(0.1, 1)
    commit(database, held, record(1, loss=value))
    commit(database, held, record(2, loss=5e-324))
    with database.read() as session:
        assert [row.metrics["train_loss"] for row in lookup.epochs(session, job_id)] == [value, 5e-324]


def test_a_rolled_back_epoch_leaves_no_hole_in_the_log(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    same = StoredFile(
        kind=ArtifactKind.SAMPLE, epoch=1, path="x" * 10, name="n" * 10_000, size_bytes=1, sha256="s" * 99
    )
    if not database.is_sqlite:  # SQLite takes a text of any length
        with pytest.raises(Exception, match="too long"):
            commit(database, held, record(1, files=(same,)))
    commit(database, held, record(1))
    assert [kind for kind, _ in log(database, job_id)] == ["status", "status", "metrics"]


def test_a_request_is_noticed_at_the_next_poll(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    assert leases.requested(database, held) is None
    actions.pause(database, job_id)
    assert leases.requested(database, held) is Request.PAUSE
    actions.cancel(database, job_id)
    assert leases.renew(database, held, Position(step=3, steps=40)) is Request.CANCEL


@pytest.mark.parametrize(
    ("request_", "status"),
    [(None, Status.QUEUED), (Request.PAUSE, Status.PAUSED), (Request.CANCEL, Status.CANCELLED)],
)
def test_letting_go_throws_the_unfinished_epoch_away(
    database: Database, submit: Submit, request_: Request | None, status: Status
) -> None:
    job_id = submit()
    held = claim(database)
    commit(database, held, record(1))
    leases.renew(database, held, Position(step=17, steps=40))
    leases.hand_back(database, held, request_)
    job = look(database, job_id)
    assert (job.status, job.step, job.epoch, job.attempt, job.requested) == (status, 10, 1, 1, None)
    assert job.lease_owner is None


def test_a_lost_worker_costs_an_attempt_and_nothing_else(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    commit(database, held, record(1))
    leases.report_death(database, held, "killed")
    job = look(database, job_id)
    assert (job.status, job.attempt, job.epoch) == (Status.QUEUED, 2, 1)


def test_three_deaths_without_an_epoch_between_them_fail_the_job(database: Database, submit: Submit) -> None:
    job_id = submit()
    for _ in range(2):
        leases.report_death(database, claim(database), "killed")
    held = claim(database)
    commit(database, held, record(1))  # it lives: the count begins anew
    for _ in range(2):
        leases.report_death(database, held, "killed")
        held = claim(database)
    leases.report_death(database, held, "killed")
    job = look(database, job_id)
    assert job.status == Status.FAILED
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert actions.retry(database, job_id).attempt == 6


def test_the_jobs_of_a_silent_worker_are_taken_back_when_their_lease_is_over(
    database: Database, submit: Submit
) -> None:
    silent, alive = submit(priority=9), submit()
    held = claim(database, "silent", lease_s=30)
    other = claim(database, "alive", lease_s=30)
    assert (held.job_id, other.job_id) == (silent, alive)
    assert rescue(database) == []
    with database.write() as session:  # its time is over
        session.execute(update(Job).where(Job.id == silent).values(lease_expires_ms=1))
    assert rescue(database) == [silent]
    assert look(database, silent).status == Status.QUEUED
    assert look(database, alive).status == Status.RUNNING
    assert "silent" in reasons(database, silent)[-1]


def test_a_cancel_is_obeyed_even_when_the_worker_dies_first(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    actions.cancel(database, job_id)
    leases.report_death(database, held, "killed")
    assert look(database, job_id).status == Status.CANCELLED


def test_a_cancel_is_obeyed_even_when_the_worker_stops_in_that_moment(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    actions.cancel(database, job_id)
    leases.hand_back(database, held, None)
    assert look(database, job_id).status == Status.CANCELLED


def test_another_machine_is_put_on_record(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    leases.begin(database, held, {"numpy": "1", "threads": 1})
    leases.hand_back(database, held, None)
    held = claim(database)
    leases.begin(database, held, {"numpy": "1", "threads": 1})
    assert [kind for kind, _ in log(database, job_id)].count("log") == 0
    leases.hand_back(database, held, None)
    leases.begin(database, claim(database), {"numpy": "2", "threads": 1})
    kind, data = log(database, job_id)[-1]
    assert (kind, data["code"]) == ("log", "mixed_provenance")
    assert "numpy" in data["message"]


def test_a_damaged_checkpoint_is_dropped_with_a_word(database: Database, submit: Submit, tmp_path: Path) -> None:
    job_id, store = submit(), ArtifactFolder(tmp_path / "artifacts")
    held = claim(database)
    for epoch in (1, 2):
        file = store.write(job_id, ArtifactKind.CHECKPOINT, epoch, held.lease, b"%d" % epoch)
        commit(database, held, record(epoch, files=(file,)))
    newest = commits.checkpoints(database, held)[0]
    assert newest.epoch == 2
    commits.drop_checkpoint(database, held, newest, "bits flipped")
    assert [row.epoch for row in commits.checkpoints(database, held)] == [1]
    assert log(database, job_id)[-1][1]["code"] == "checkpoint_damaged"


def test_the_digest_hangs_on_weights_metrics_and_samples(database: Database, submit: Submit) -> None:
    submit()
    held = claim(database)
    commit(database, held, record(1))
    one = commits.digest(database, held, "w")
    assert commits.digest(database, held, "w") == one
    assert commits.digest(database, held, "v") != one
    commit(database, held, record(2))
    assert commits.digest(database, held, "w") != one


def test_a_worker_that_checks_in_is_alive(database: Database) -> None:
    def worker(running: int) -> Worker:
        return Worker(id="w", host="h", pid=1, slots=2, running=running, draining=False)

    worker_registry.check_in(database, worker(0))
    worker_registry.check_in(database, worker(1))
    with database.read() as session:
        assert [found.running for found in worker_registry.live_workers(session)] == [1]


def test_findings_stand_in_the_job_and_their_coming_and_going_in_its_log(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    first, second = finding(2), finding(3, FindingCode.DEAD_UNITS)
    for epoch, health in ((1, ()), (2, (first,)), (3, (first, second)), (4, (second,))):
        commit(database, held, record(epoch, health=health))
    assert look(database, job_id).health == [second.document()]
    told = [data for kind, data in log(database, job_id) if kind == "health"]
    assert [(data["state"], data["code"], data["epoch"], data["since"]) for data in told] == [
        ("found", "overfitting", 2, 2),
        ("found", "dead_units", 3, 3),
        ("over", "overfitting", 4, 2),
    ]
    assert told[0]["numbers"] == {"val_loss": 0.1 + 0.2}
    metrics = [data["health"] for kind, data in log(database, job_id) if kind == "metrics"]
    assert metrics == [[], ["overfitting"], ["overfitting", "dead_units"], ["dead_units"]]


def test_an_epoch_that_is_trained_again_reports_no_finding_twice(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    commit(database, held, record(1))
    commit(database, held, record(2, health=(finding(2),)))
    leases.hand_back(database, held, None)
    held = claim(database)
    commit(database, held, record(1))
    commit(database, held, record(2, health=(finding(2),)))
    assert look(database, job_id).health == [finding(2).document()]
    assert [kind for kind, _ in log(database, job_id)].count("health") == 1
