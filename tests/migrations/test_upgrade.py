from __future__ import annotations

import json
import threading
from collections.abc import Callable

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import select, text

from migrations.upgrade import config, exclusively, is_current, upgrade
from service.access import audit_seals
from service.access.audit_chain import verify
from service.jobs.extremes import Extremes, extended
from service.storage.database import Database
from service.storage.tables import Job


def test_an_empty_database_is_brought_to_the_schema_of_the_code(database_url: str) -> None:
    database = Database(database_url)
    assert not is_current(database)
    upgrade(database)
    assert is_current(database)
    database.close()


def test_migrations_and_tables_say_the_same(database: Database) -> None:
    with database.engine.begin() as connection:
        made = config()
        made.attributes["connection"] = connection
        command.check(made)


def test_everything_can_be_taken_back_and_applied_again(database: Database) -> None:
    made = config()
    with database.engine.begin() as connection:
        made.attributes["connection"] = connection
        command.downgrade(made, "base")
    assert not is_current(database)
    upgrade(database)
    assert is_current(database)


def test_of_many_processes_at_once_one_migrates(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(4)]
    threads = [threading.Thread(target=upgrade, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert is_current(databases[0])
    for database in databases:
        database.close()


_JOB = """INSERT INTO jobs (id, kind, tags, priority, spec, resolved, spec_hash, status, attempt, deaths, lease, epoch,
    epochs, step, steps, metrics, health, last_seq, created_ms, queued_ms) VALUES ('job_a', 'classifier', '[]', 5, '{}',
    '{}', 'x', 'succeeded', 1, 0, 1, 1, 1, 1, 1, '{}', '[]', 1, 1, 1)"""
_CHILDREN = {
    "events": "(job_id, seq, type, data, created_ms) VALUES ('job_a', 1, 'status', '{}', 1)",
    "epochs": "(job_id, epoch, step, metrics, seconds, lease, finished_ms) VALUES ('job_a', 1, 1, '{}', 1, 1, 1)",
    "job_tags": "(tag, job_id) VALUES ('t', 'job_a')",
    "artifacts": "(id, job_id, kind, epoch, lease, name, path, media_type, size_bytes, sha256, created_ms)"
    " VALUES ('a', 'job_a', 'checkpoint', 1, 1, 'n', 'p', 'm', 1, 's', 1)",
}


def test_no_step_loses_a_row(database_url: str) -> None:
    """SQLite makes a table anew to change it."""
    database = Database(database_url)

    def move(to: Callable[..., None], revision: str) -> None:
        with exclusively(database) as connection:
            to(config(connection), revision)

    revisions = [script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()][::-1]
    move(command.upgrade, revisions[0])
    with database.write() as session:
        session.execute(text(_JOB))
        for table, row in _CHILDREN.items():
            session.execute(text(f"INSERT INTO {table} {row}"))
    up = [(command.upgrade, revision) for revision in revisions[1:]]
    for to, revision in [*up, *[(command.downgrade, revision) for revision in revisions[-2::-1]]]:
        move(to, revision)
        with database.read() as session:
            counts = {table: session.scalar(text(f"SELECT count(*) FROM {table}")) for table in ("jobs", *_CHILDREN)}
        assert counts == dict.fromkeys(counts, 1), f"after {to.__name__} to {revision}"
    if database.is_sqlite:
        with database.read() as session:
            assert session.execute(text("PRAGMA foreign_key_check")).all() == []
            assert session.scalar(text("PRAGMA foreign_keys")) == 1
    database.close()


def test_old_jobs_are_pinned_to_the_upload_that_they_were_trained_on(database_url: str) -> None:
    """Not to one that came later under the same name, nor to one that is another owner's."""
    database = Database(database_url)
    upload = text(
        "INSERT INTO uploads (id, owner, name, image_rows, image_columns, classes, train_count, validation_count,"
        " sha256, size_bytes, created_ms) VALUES (:id, :owner, 'mine', 8, 8, 2, 10, 10, :sha256, 100, 50)"
    )
    job = text("UPDATE jobs SET owner = :owner, resolved = :resolved, provenance = :provenance, created_ms = :at")
    cases = {  # owner, what it was trained on, when it was submitted, which upload it is pinned to
        "waiting": (None, None, 60, "ds_own"),
        "trained": (None, "sha256:own", 60, "ds_own"),
        "others": (None, "sha256:gone", 60, None),
        "earlier": (None, None, 40, None),
        "ann": ("ann", "sha256:ann", 60, "ds_ann"),
    }
    with exclusively(database) as connection:
        command.upgrade(config(connection), "0012")
        connection.execute(upload, {"id": "ds_own", "owner": "", "sha256": "sha256:own"})
        connection.execute(upload, {"id": "ds_ann", "owner": "ann", "sha256": "sha256:ann"})
        for job_id, (owner, trained_on, at, _) in cases.items():
            connection.execute(text(_JOB.replace("'job_a'", ":id")), {"id": job_id})
            values = {
                "owner": owner,
                "resolved": json.dumps({"dataset": {"name": "mine"}}),
                "provenance": json.dumps({"dataset": trained_on}) if trained_on else None,
                "at": at,
            }
            connection.execute(text(f"{job} WHERE id = :id"), values | {"id": job_id})
    upgrade(database)
    with database.read() as session:
        rows = session.execute(text("SELECT id, upload_id, dataset_sha256 FROM jobs")).all()
    assert {row.id: row.upload_id for row in rows} == {job_id: case[3] for job_id, case in cases.items()}
    digests = {job_id: case[1] for job_id, case in cases.items()} | {"waiting": "sha256:own"}
    assert {row.id: row.dataset_sha256 for row in rows} == digests
    database.close()


def test_jobs_from_before_extremes_get_them(database_url: str) -> None:
    """Of one job all epochs are older, of the other the first; what newer code wrote of a third stays as it is."""
    database = Database(database_url)
    metrics: list[dict[str, float | None]] = [
        {"val_loss": 0.5, "d_loss": None},
        {"val_loss": 0.2, "d_loss": 1},
        {"val_loss": 0.2, "new/layers.0": 1e-9},
        {"val_loss": None},
    ]
    written = {"val_loss": {"min": 0.2, "min_epoch": 3, "max": 0.2, "max_epoch": 3}}
    job = _JOB.replace("'job_a'", ":id").replace("(id,", "(id, name,").replace("(:id,", "(:id, '',")
    epoch = text(
        "INSERT INTO epochs (job_id, epoch, step, metrics, seconds, lease, finished_ms)"
        " VALUES (:job, :epoch, 1, :metrics, 1, 1, 1)"
    )
    with exclusively(database) as connection:
        command.upgrade(config(connection), "0007")
        for job_id in ("old", "between", "new", "waiting"):
            connection.execute(text(job), {"id": job_id})
        for at, values in enumerate(metrics, 1):
            for job_id in ("old", "between", "new"):
                connection.execute(epoch, {"job": job_id, "epoch": at, "metrics": json.dumps(values)})
        command.upgrade(config(connection), "0011")
        connection.execute(
            text("UPDATE epochs SET cpu_seconds = 1 WHERE job_id = 'new' OR epoch > 2 AND job_id <> 'old'")
        )
        given = {"extremes": json.dumps(written)}
        connection.execute(text("UPDATE jobs SET extremes = :extremes WHERE id IN ('between', 'new')"), given)
        connection.execute(text("UPDATE jobs SET name = 'kept' WHERE id = 'new'"))
    upgrade(database)
    whole: Extremes = {}
    for at, values in enumerate(metrics, 1):
        whole = extended(whole, values, at)
    with database.read() as session:
        found = {job_id: (name, kept) for job_id, name, kept in session.execute(select(Job.id, Job.name, Job.extremes))}
    assert found == {
        "old": (None, whole),
        "between": (None, whole),
        "new": ("kept", written),
        "waiting": (None, {}),
    }
    database.close()


def test_entries_of_an_older_schema_are_sealed_and_stay_when_it_comes_back(database_url: str) -> None:
    database = Database(database_url)
    entry = text("INSERT INTO audit (at_ms, action, detail) VALUES (1, 'submit', '{}')")
    for moved in (command.upgrade, command.downgrade):
        with exclusively(database) as connection:
            moved(config(connection), "0013")
            connection.execute(entry)
        upgrade(database)
        assert audit_seals.seal(database) > 0
        assert verify(audit_seals.items(database)).fault is None
    assert verify(audit_seals.items(database)).entries == 2
    database.close()
