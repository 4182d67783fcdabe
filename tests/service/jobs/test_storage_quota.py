"""The quota of job files: what an epoch may add, and that the sums equal the rows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, func, select, text, update

from service.access import storage_quota
from service.access.storage_quota import StoredBytes
from service.errors import LeaseLost, StorageQuotaExceeded
from service.jobs import actions, commits, epoch_commits, submissions
from service.jobs.submissions import Submission
from service.spec.validation import resolve
from service.states import Status
from service.storage import artifact_rows
from service.storage.artifacts import ArtifactKind, StoredFile
from service.storage.database import Database
from service.storage.stores import ArtifactFolder
from service.storage.tables import Artifact, Job
from tests.conftest import postgresql_only, sqlite_only
from tests.service.jobs.conftest import Submit, claim, log, read_job, record
from tests.service.jobs.queries.test_plans import query_plans
from tests.waiting import wait_until

Write = Callable[..., StoredFile]
KIBIBYTE = 1024


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that stores a file of a job, by default a checkpoint of a kibibyte."""
    store = ArtifactFolder(tmp_path / "artifacts")

    def write(
        job_id: str, epoch: int, *, size: int = KIBIBYTE, kind: ArtifactKind = ArtifactKind.CHECKPOINT
    ) -> StoredFile:
        return store.write(job_id, kind, epoch, 1, bytes([epoch]) * size)

    return write


def read(database: Database, owner: str) -> StoredBytes:
    with database.read() as session:
        return storage_quota.read(session, owner)


def rows(database: Database, owner: str) -> int:
    query = select(func.coalesce(func.sum(Artifact.size_bytes), 0)).join(Job, Job.id == Artifact.job_id)
    with database.read() as session:
        return int(session.scalar(query.where(Job.owner == owner)) or 0)


def test_an_epoch_that_does_not_fit_is_not_committed_and_the_files_of_others_do_not_count(
    database: Database, submit: Submit, write: Write
) -> None:
    other = submit(owner="bob")
    held = claim(database)
    epoch_commits.commit(database, held, [record(1, files=(write(other, 1),))], keep_last=3, at_most=KIBIBYTE)
    job_id = submit(owner="ann")
    held = claim(database)
    epoch_commits.commit(database, held, [record(1, files=(write(job_id, 1),))], keep_last=3, at_most=2 * KIBIBYTE)
    before = log(database, job_id)
    file = write(job_id, 2, size=KIBIBYTE + 1)
    with pytest.raises(StorageQuotaExceeded, match=r"ann's jobs take 1,024 of 2,048 bytes .* and 1,025 more") as caught:
        epoch_commits.commit(database, held, [record(2, files=(file,))], keep_last=3, at_most=2 * KIBIBYTE)
    assert (caught.value.stored, caught.value.added, caught.value.limit) == (1024, 1025, 2048)
    job = read_job(database, job_id)
    assert (job.status, job.epoch, job.size_bytes, log(database, job_id)) == (Status.RUNNING, 1, 1024, before)
    assert [row.epoch for row in commits.checkpoints(database, held)] == [1]
    epoch_commits.commit(database, held, [record(2, files=(write(job_id, 2),))], keep_last=3, at_most=2 * KIBIBYTE)
    assert read(database, "ann").stored == 2048


def test_an_epoch_that_replaces_files_of_the_same_size_fits_although_the_limit_was_lowered(
    database: Database, submit: Submit, write: Write
) -> None:
    job_id = submit(owner="ann")
    held = claim(database)
    epoch_commits.commit(database, held, [record(1, files=(write(job_id, 1),))], keep_last=1)
    epoch_commits.commit(database, held, [record(2, files=(write(job_id, 2),))], keep_last=1, at_most=1)
    epoch_commits.commit(database, held, [record(3)], keep_last=1, at_most=1)
    assert (read_job(database, job_id).epoch, rows(database, "ann")) == (3, KIBIBYTE)


def test_files_of_jobs_without_an_owner_are_not_limited(database: Database, submit: Submit, write: Write) -> None:
    job_id = submit()
    held = claim(database)
    epoch_commits.commit(database, held, [record(1, files=(write(job_id, 1),))], keep_last=3, at_most=1)
    assert read_job(database, job_id).size_bytes == KIBIBYTE


def test_an_epoch_begins_with_the_guard_and_reads_no_sums_without_a_quota(
    database: Database, submit: Submit, write: Write
) -> None:
    job_id = submit(owner="ann")
    held = claim(database)
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda c, cur, statement, *_: statements.append(statement))
    for epoch, at_most in ((1, 0), (2, 2 * KIBIBYTE)):
        statements.clear()
        file = write(job_id, epoch)
        epoch_commits.commit(database, held, [record(epoch, files=(file,))], keep_last=3, at_most=at_most)
        first = next(sql for sql in statements if not sql.startswith(("BEGIN", "SET")))
        condition = first.partition("WHERE")[2]
        assert "jobs.lease" in condition
        assert "jobs.status = " in condition
        assert sum("sum(" in sql for sql in statements) == (at_most > 0)


def test_the_lease_of_a_deleted_job_is_lost(database: Database, submit: Submit) -> None:
    job_id = submit(owner="ann")
    held = claim(database)
    commits.fail(database, held, {"code": "internal", "message": "m"})
    actions.remove(database, job_id)
    with pytest.raises(LeaseLost):
        epoch_commits.commit(database, held, [record(1)], keep_last=3, at_most=1)


def is_waiting_for_an_owner(database: Database) -> bool:
    query = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with database.engine.connect() as connection:
        return bool(connection.scalar(query))


@pytest.mark.parametrize("owner", ["ann", "bob"])
def test_two_epochs_that_fit_only_alone_are_not_both_committed(
    database: Database, submit: Submit, write: Write, owner: str
) -> None:
    first = submit(owner="ann")
    second = submit(owner=owner)
    held = next(item for item in (claim(database), claim(database)) if item.job_id == second)
    errors: list[StorageQuotaExceeded] = []

    def commit() -> None:
        try:
            epoch_commits.commit(database, held, [record(1, files=(write(second, 1),))], keep_last=3, at_most=KIBIBYTE)
        except StorageQuotaExceeded as error:
            errors.append(error)

    thread = threading.Thread(target=commit)
    with database.write() as session:
        job = session.get_one(Job, first)
        session.add(artifact_rows.create(first, write(first, 1), lease=1))
        job.size_bytes += KIBIBYTE
        storage_quota.check_growth(session, "ann", KIBIBYTE, KIBIBYTE)
        thread.start()
        if not database.is_sqlite:  # which has one writer at a time
            wait_until(lambda: not thread.is_alive() or is_waiting_for_an_owner(database), "the second commit")
            assert thread.is_alive() is (owner == "ann"), "only files of the same owner wait for each other"
    thread.join()
    assert len(errors) == (owner == "ann")
    assert read(database, "ann").stored == rows(database, "ann") == KIBIBYTE


def store(database: Database, owner: str, *, expected_bytes: int) -> str:
    document = {"kind": "classifier", "epochs": 4}
    submission = Submission(
        spec=document, resolved=resolve(document), steps=40, owner=owner, expected_bytes=expected_bytes
    )
    answer, _ = submissions.submit(database, [submission], idempotency=None, represent=lambda jobs: {"id": jobs[0].id})
    return str(answer["id"])


def test_unfinished_jobs_count_with_what_they_may_still_store(database: Database, write: Write) -> None:
    queued = store(database, "ann", expected_bytes=5000)
    running = store(database, "ann", expected_bytes=5000)
    store(database, "bob", expected_bytes=7)
    assert read(database, "ann") == StoredBytes(stored=0, expected=10_000)
    held = next(item for item in (claim(database) for _ in range(3)) if item.job_id == running)
    epoch_commits.commit(database, held, [record(1, files=(write(running, 1, size=2000),))], keep_last=3)
    assert read(database, "ann") == StoredBytes(stored=2000, expected=8000)
    epoch_commits.commit(database, held, [record(2, files=(write(running, 2, size=4000),))], keep_last=3)
    assert read(database, "ann") == StoredBytes(stored=6000, expected=5000), "it stores more than expected"
    commits.fail(database, held, {"code": "storage_quota", "message": "m"})
    assert read(database, "ann") == StoredBytes(stored=6000, expected=5000)
    with database.write() as session:
        session.execute(update(Job).where(Job.id == queued).values(status=Status.CANCELLED))
    assert read(database, "ann") == StoredBytes(stored=6000, expected=0)
    assert read(database, "nobody") == StoredBytes(stored=0, expected=0)


@sqlite_only
def test_the_sums_of_an_owner_are_read_from_an_index_alone(database: Database) -> None:
    plan = query_plans(database, lambda session: storage_quota.read(session, "ann"))
    assert plan == "SEARCH jobs USING COVERING INDEX ix_jobs_quota (owner=?)"


@postgresql_only
def test_postgresql_reads_the_sums_from_the_index_alone_too(database: Database, submit: Submit) -> None:
    for _ in range(50):
        submit(owner="ann")
    statement = str(
        select(func.sum(Job.size_bytes), func.sum(storage_quota.expected_growth()))
        .where(Job.owner == "ann")
        .compile(database.engine, compile_kwargs={"literal_binds": True})
    )

    def plan(connection: Connection) -> str:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # which is faster for so few rows
        connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        return "\n".join(row[0] for row in connection.exec_driver_sql("EXPLAIN " + statement))

    # Otherwise the planner guesses, and may take any index of owners: it does not know that all rows are visible.
    with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("VACUUM (ANALYZE) jobs")
    with database.engine.connect() as connection:
        assert "Index Only Scan using ix_jobs_quota" in plan(connection)
