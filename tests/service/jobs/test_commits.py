"""What an epoch commit and the end of a job store: metrics, files, findings and events."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import event

from service.jobs import commits, epoch_commits, leases
from service.jobs.epoch_commits import EpochRecord
from service.jobs.leases import Position
from service.jobs.queries import lookup
from service.schema.findings import Advice, Finding
from service.states import FindingCode, Severity, Status
from service.storage.artifacts import ArtifactKind, StoredFile
from service.storage.database import Database
from service.storage.stores import ArtifactFolder
from service.storage.tables import Artifact
from tests.service.jobs.conftest import Submit, claim, commit, log, read_job, record
from tests.service.jobs.leases import renew


def finding(epoch: int, code: FindingCode = FindingCode.OVERFITTING) -> Finding:
    numbers = {"val_loss": 0.1 + 0.2}
    return Finding(
        code=code,
        severity=Severity.WARNING,
        epoch=epoch,
        message="m",
        numbers=numbers,
        advice=[Advice({"epochs": 3}, "a")],
    )


def test_an_epoch_committed_during_the_next_one_does_not_take_back_reported_steps(
    database: Database, submit: Submit
) -> None:
    job_id = submit()
    held = claim(database)
    renew(database, held, Position(step=13, steps=40))
    commit(database, held, record(1))
    assert (read_job(database, job_id).epoch, read_job(database, job_id).step) == (1, 13)
    commit(database, held, record(2))
    assert read_job(database, job_id).step == 20


def test_an_early_stop_is_a_success_with_a_reason(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    for epoch in (1, 2):
        commit(database, held, record(epoch))
    reason = {"metric": "val_loss", "best": 0.25, "best_epoch": 1, "patience": 1}
    epoch_commits.succeed(database, held, "sha256:done", stopped_early=reason)
    job = read_job(database, job_id)
    assert (job.status, job.epoch, job.epochs, job.stopped_early) == (Status.SUCCEEDED, 2, 4, reason)
    assert job.step == job.steps == 20  # no steps remain
    last = log(database, job_id)[-3:]
    assert [kind for kind, _ in last] == ["log", "status", "end"]
    assert last[0][1]["code"] == "stopped_early"
    assert last[0][1]["message"] == (
        "stopped after epoch 2 of 4: val_loss was best in epoch 1 (0.25), and not better for 1 epoch"
    )


def test_an_epoch_commit_stores_metrics_events_and_files(database: Database, submit: Submit, tmp_path: Path) -> None:
    job_id, store = submit(), ArtifactFolder(tmp_path / "artifacts")
    held = claim(database)
    files = (
        store.write(job_id, ArtifactKind.CHECKPOINT, 1, held.lease, b"weights"),
        store.write(job_id, ArtifactKind.SAMPLE, 1, held.lease, b"picture"),
    )
    assert commit(database, held, record(1, files=files, is_best=True)) == []
    job = read_job(database, job_id)
    assert (job.epoch, job.step, job.best_epoch, job.metrics) == (1, 10, 1, {"train_loss": 1.0})
    assert [kind for kind, _ in log(database, job_id)][-3:] == ["metrics", "checkpoint", "sample"]
    with database.read() as session:
        assert lookup.checkpoint(session, job, "best").sha256 == files[0].sha256
        assert lookup.checkpoint(session, job, "1").path == files[0].path
        assert lookup.sample(session, job, "latest").path == files[1].path


def test_the_last_checkpoints_and_the_best_are_retained(database: Database, submit: Submit, tmp_path: Path) -> None:
    another_id, job_id, store = submit(), submit(), ArtifactFolder(tmp_path / "artifacts")
    another_held, held = claim(database), claim(database)
    another = store.write(another_id, ArtifactKind.CHECKPOINT, 1, another_held.lease, b"another job's")
    assert commit(database, another_held, record(1, files=(another,))) == []
    sample = store.write(job_id, ArtifactKind.SAMPLE, 1, held.lease, b"sample")
    for epoch in range(1, 7):
        file = store.write(job_id, ArtifactKind.CHECKPOINT, epoch, held.lease, b"%d" % epoch)
        files = (file, sample) if epoch == 1 else (file,)
        store.remove(commit(database, held, record(epoch, files=files, is_best=epoch <= 2), keep_last=2))
    with database.read() as session:
        artifacts = lookup.artifacts(session, job_id)
        assert [row.path for row in lookup.artifacts(session, another_id)] == [another.path]
    assert sorted((row.kind, row.epoch) for row in artifacts) == [
        *((ArtifactKind.CHECKPOINT, epoch) for epoch in (2, 5, 6)),
        (ArtifactKind.SAMPLE, 1),
    ]
    on_disk = {str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file()}
    assert on_disk == {another.path, *(row.path for row in artifacts)}


def test_an_epoch_commit_loads_no_rows_of_checkpoints(database: Database, submit: Submit, tmp_path: Path) -> None:
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
    assert not rows
    with database.read() as session:
        assert [row.epoch for row in lookup.artifacts(session, job_id)] == list(range(11, 41))


def test_other_metrics_of_a_repeated_epoch_are_a_determinism_violation(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    commit(database, held, record(1))
    before = log(database, job_id)
    commit(database, held, record(1))
    assert log(database, job_id) == before
    commit(database, held, record(1, loss=math.nextafter(1.0, 2.0)))
    kind, data = log(database, job_id)[-1]
    assert (kind, data["code"], data["level"]) == ("log", "determinism_violation", "error")


def test_repeating_an_earlier_epoch_undoes_no_completed_one(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    for epoch in (1, 2, 3):
        commit(database, held, record(epoch))
    leases.record_child_loss(database, held, "killed")
    commit(database, claim(database), record(2))  # resumed from an older checkpoint
    job = read_job(database, job_id)
    assert (job.epoch, job.step, job.metrics) == (3, 30, {"train_loss": 1 / 3})


def test_metrics_are_stored_bit_for_bit(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    value = math.nextafter(0.1, 1)
    commit(database, held, record(1, loss=value))
    commit(database, held, record(2, loss=5e-324))
    with database.read() as session:
        assert [row.metrics["train_loss"] for row in lookup.epochs(session, job_id)] == [value, 5e-324]


def test_a_rolled_back_epoch_stores_nothing_and_leaves_no_gap_in_the_log(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    with database.write() as session:
        lookup.get(session, job_id).hold_epoch = 1
    before, log_before = read_job(database, job_id), log(database, job_id)
    file = StoredFile(kind=ArtifactKind.SAMPLE, epoch=1, path="1", name="n", size_bytes=1, sha256="s")
    too_long = replace(file, name="n" * 10_000)
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda c, cur, statement, *_: statements.append(statement))

    def fail(*_: object) -> None:
        raise RuntimeError("at the end of the transaction")

    with pytest.raises(RuntimeError, match="at the end"):
        epoch_commits.commit(database, held, [record(1, files=(file,))], keep_last=3, then=fail)
    written = {table for table in ("epochs", "events", "artifacts") if any(f"INTO {table}" in s for s in statements)}
    assert written == {"epochs", "events", "artifacts"}
    if not database.is_sqlite:  # SQLite accepts a text of any length
        with pytest.raises(Exception, match="too long"):
            commit(database, held, record(1, files=(too_long,)))
    after = read_job(database, job_id)
    assert (after.status, after.epoch, after.size_bytes) == (before.status, before.epoch, before.size_bytes)
    assert log(database, job_id) == log_before
    with database.read() as session:
        assert (lookup.epochs(session, job_id), lookup.artifacts(session, job_id)) == ([], [])
    commit(database, held, record(1))
    assert [kind for kind, _ in log(database, job_id)] == ["status", "status", "metrics", "status"]


def test_a_damaged_checkpoint_is_dropped_and_logged(database: Database, submit: Submit, tmp_path: Path) -> None:
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


def test_the_result_digest_depends_only_on_weights_digested_metrics_samples_and_test_scores(
    database: Database, submit: Submit
) -> None:
    def digest(*epochs: EpochRecord, weights: str = "w", test_scores: dict[str, float] | None = None) -> str:
        """The digest of a job whose last epoch is committed with the result."""
        job_id = submit()
        held = claim(database)
        for epoch_record in epochs[:-1]:
            commit(database, held, epoch_record)
        epoch_commits.succeed(database, held, weights, records=epochs[-1:], test_scores=test_scores)
        return read_job(database, job_id).result_digest or ""

    first = record(1)
    expected = digest(first)
    undigested = {"val_macro_f1": 0.5, "val_roc_auc": 0.5}
    for same in (
        first,
        replace(first, metrics={**first.metrics, **undigested}),
        replace(first, confusion=None, seconds=9.0, cpu_seconds=1.0, memory_bytes=1, is_best=True),
    ):
        assert digest(same) == expected
    others = [
        digest(first, weights="v"),
        digest(record(1, loss=math.nextafter(1.0, 2.0))),
        digest(replace(first, metrics={"val_loss": 1.0})),
        digest(replace(first, samples_digest="sha256:2")),
        digest(first, record(2)),
        digest(first, test_scores={"test_loss": 0.5, "test_epoch": 1}),
        digest(first, test_scores={"test_loss": 0.25, "test_epoch": 1}),
    ]
    assert len({expected, *others}) == 1 + len(others)


def test_current_findings_are_stored_in_the_job_and_their_changes_in_its_log(
    database: Database, submit: Submit
) -> None:
    job_id = submit()
    held = claim(database)
    first, second = finding(2), finding(3, FindingCode.DEAD_UNITS)
    for epoch, health in ((1, ()), (2, (first,)), (3, (first, second)), (4, (second,))):
        commit(database, held, record(epoch, health=health))
    assert read_job(database, job_id).health == [second.document()]
    health_events = [data for kind, data in log(database, job_id) if kind == "health"]
    assert [(data["state"], data["code"], data["epoch"], data["since"]) for data in health_events] == [
        ("found", "overfitting", 2, 2),
        ("found", "dead_units", 3, 3),
        ("over", "overfitting", 4, 2),
    ]
    assert health_events[0]["numbers"] == {"val_loss": 0.1 + 0.2}
    metrics = [data["health"] for kind, data in log(database, job_id) if kind == "metrics"]
    assert metrics == [[], ["overfitting"], ["overfitting", "dead_units"], ["dead_units"]]


def test_a_repeated_epoch_reports_no_finding_twice(database: Database, submit: Submit) -> None:
    job_id = submit()
    held = claim(database)
    commit(database, held, record(1))
    commit(database, held, record(2, health=(finding(2),)))
    leases.release_lease(database, held, None)
    held = claim(database)
    commit(database, held, record(1))
    commit(database, held, record(2, health=(finding(2),)))
    assert read_job(database, job_id).health == [finding(2).document()]
    assert [kind for kind, _ in log(database, job_id)].count("health") == 1


def test_a_batch_whose_response_was_lost_is_committed_once(database: Database, submit: Submit, tmp_path: Path) -> None:
    """It has more checkpoints than are kept: the first attempt has removed rows that the second one does not find."""
    job_id = submit()
    held = claim(database)
    store = ArtifactFolder(tmp_path)
    records = [
        record(
            epoch, files=(store.write(job_id, ArtifactKind.CHECKPOINT, epoch, held.lease, b"x"),), is_best=epoch == 2
        )
        for epoch in range(1, 11)
    ]
    orphans = epoch_commits.commit(database, held, records, keep_last=3)
    before = log(database, job_id)
    assert epoch_commits.commit(database, held, records, keep_last=3) == orphans
    assert log(database, job_id) == before
    with database.read() as session:
        stored = lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT)
        assert [row.epoch for row in stored] == [2, 8, 9, 10]
        assert lookup.get(session, job_id).size_bytes == sum(row.size_bytes for row in stored)
    assert sorted([*orphans, *(row.path for row in stored)]) == sorted(item.files[0].path for item in records)
