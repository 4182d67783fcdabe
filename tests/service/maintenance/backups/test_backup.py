"""A lost service is restored from its backup, from either kind of database into either."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from alembic.config import Config
from sqlalchemy import Connection, delete, select, text, update
from sqlalchemy.exc import DatabaseError

from migrations import upgrade
from migrations.upgrade import head, is_current
from service.access import audit_seals, owners
from service.access.audit_chain import verify
from service.jobs import epoch_commits, events, leases
from service.jobs.queries import lookup
from service.maintenance.backups.backup import BackupError, backup, restore
from service.maintenance.backups.backup_format import PartWriter, read_parts
from service.states import TERMINAL
from service.storage.database import Database, now_ms
from service.storage.owner_tables import OwnerQueue, OwnerUsage
from service.storage.stores import ArtifactFolder
from service.storage.tables import AuditEntry, Base, Job
from tests.service.maintenance.conftest import DAY_MS, Installation, files_of, read_dataset


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    """The target of a restore, without even a schema."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'new' / 'tapeline.db'}"
    else:
        name, server = f"empty_{uuid4().hex}", request.getfixturevalue("postgres_server")
        with psycopg.connect(f"user=postgres dbname=postgres host={server}", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        url = f"postgresql+psycopg://postgres:@/{name}?host={server}"
    target = Installation(Database(url), ArtifactFolder(tmp_path / "new" / "artifacts"))
    yield target
    target.database.close()


def rows(database: Database) -> dict[str, list[dict[str, Any]]]:
    """All rows, without those of jobs that have not ended: a restore queues them."""
    with database.read() as session:
        unended = set(session.scalars(select(Job.id).where(Job.status.not_in(TERMINAL))))
        return {
            table.name: sorted(
                (
                    dict(row)
                    for row in session.execute(select(table)).mappings()
                    if table.name not in ("jobs", "events") or unended.isdisjoint((row.get("id"), row.get("job_id")))
                ),
                key=repr,
            )
            for table in Base.metadata.sorted_tables
            if table.name not in ("workers", "owner_queue")  # triggers of the jobs fill the latter
        }


def logged_events(database: Database, job_id: str) -> list[tuple[int, str, dict[str, Any]]]:
    with database.read() as session:
        return [(event.seq, event.type, dict(event.data)) for event in events.read(session, job_id)]


def make_backup(installation: Installation) -> io.BytesIO:
    target = io.BytesIO()
    assert backup(installation.database, installation.files, target).damaged == []
    target.seek(0)
    return target


def rewritten(data: bytes, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> bytes:
    """The same backup with changed parts and correct checksums."""
    output = io.BytesIO()
    writer = PartWriter(output)
    for name, content in read_parts(io.BytesIO(data)):
        if (part := change(name, b"".join(content))) is not None:
            writer.add(part[0], io.BytesIO(part[1]))
    writer.finish()
    return output.getvalue()


@pytest.fixture
def add_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that adds a schema revision to those of the code: a column of jobs."""
    folder = tmp_path / "next"
    folder.mkdir()
    (folder / "next.py").write_text(NEXT.replace("HEAD", str(head())), encoding="utf-8")
    original_config = upgrade.config

    def config_with_next(connection: Connection | None = None) -> Config:
        config = original_config(connection)
        config.set_main_option("path_separator", "os")
        versions = Path(upgrade.__file__).parent / "versions"
        config.set_main_option("version_locations", os.pathsep.join(map(str, (versions, folder))))
        return config

    return lambda: monkeypatch.setattr(upgrade, "config", config_with_next)


NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "next"
down_revision = "HEAD"

def upgrade():
    op.add_column("jobs", sa.Column("added_later", sa.Integer(), server_default="7", nullable=False))

def downgrade():
    op.drop_column("jobs", "added_later")
"""


def test_everything_is_restored_and_a_running_job_continues_with_its_log(
    installation: Installation, empty: Installation
) -> None:
    ended, running = installation.train(), installation.train(ended_days_ago=None)
    archive = make_backup(installation)
    report = restore(empty.database, empty.files, archive)
    assert report.files == 20
    assert is_current(empty.database)
    assert rows(empty.database) == rows(installation.database)
    assert empty.paths() == installation.paths()
    assert empty.checkpoint_epochs(ended) == [1, 2, 3, 4, 5]
    logged = logged_events(installation.database, running)
    # The service continues: the running job waits for no lease of a lost worker, and its log continues without a gap.
    claim = leases.claim(empty.database, "another", 60.0)
    assert claim is not None
    assert (claim.job_id, claim.lease) == (running, 2)
    with empty.database.read() as session:
        assert lookup.get(session, running).epoch == 5
    epoch_commits.succeed(empty.database, claim, "sha256:done")
    continued = logged_events(empty.database, running)
    assert continued[: len(logged)] == logged
    assert [seq for seq, _, _ in continued] == list(range(1, len(continued) + 1))
    new = [(kind, data["status"]) for _, kind, data in continued[len(logged) :]]
    assert new == [("status", "queued"), ("status", "running"), ("status", "succeeded"), ("end", "succeeded")]


def test_the_queue_of_owners_is_counted_again_with_weights_and_caps(
    installation: Installation, empty: Installation
) -> None:
    held = installation.train(ended_days_ago=None)
    installation.train()
    with installation.database.write() as session:
        session.execute(update(Job).where(Job.id == held).values(owner="ann", claimed_ms=Job.claimed_ms - 7 * DAY_MS))
    owners.change(installation.database, "ann", {"weight": 2.0, "running_jobs": 3, "display_name": "Änn"})
    report = restore(empty.database, empty.files, make_backup(installation))
    assert "owner_queue" not in report.rows
    with empty.database.read() as session:
        rows = {row.owner: row for row in session.scalars(select(OwnerQueue))}
        usage = session.scalars(select(OwnerUsage.slot_seconds)).all()
    ann = rows["ann"]
    assert (ann.running, ann.queued, ann.weight, ann.cap) == (0, 1, 2.0, 3)
    assert all(row.queued == row.running == 0 for name, row in rows.items() if name != "ann")
    assert max(usage) < 3600 > ann.mean_seconds, "nobody pays for the time between backup and restore"


def test_a_backup_of_an_older_schema_is_upgraded(
    installation: Installation, empty: Installation, add_revision: Callable[[], None]
) -> None:
    job_id = installation.train()
    archive = make_backup(installation)
    add_revision()
    upgrade.upgrade(empty.database)  # an empty database of the newer schema is downgraded first
    report = restore(empty.database, empty.files, archive)
    assert report.rows["jobs"] == 1
    assert is_current(empty.database)
    with empty.database.read() as session:
        assert session.execute(text("SELECT id, added_later FROM jobs")).all() == [(job_id, 7)]
    assert empty.checkpoint_epochs(job_id) == [1, 2, 3, 4, 5]


def test_a_file_pruned_during_the_backup_is_left_out_with_its_row(
    installation: Installation, empty: Installation
) -> None:
    job_id = installation.train()
    with installation.database.read() as session:
        first, *_ = lookup.artifacts(session, job_id)

    class Pruning(ArtifactFolder):
        """Removes a checkpoint, as a running job does, between the rows and the files."""

        def read(self, path: str, sha256: str) -> bytes:
            if path == first.path and (self.root / path).exists():
                with installation.database.write() as session:
                    session.delete(session.get_one(type(first), first.id))
                self.remove([path])
            return super().read(path, sha256)

    target = io.BytesIO()
    pruning = files_of(Pruning(installation.store.root), installation.store.root)
    report = backup(installation.database, pruning, target)
    assert (report.files, report.damaged) == (9, [])
    target.seek(0)
    restore(empty.database, empty.files, target)
    assert empty.checkpoint_epochs(job_id) == [2, 3, 4, 5]


def test_a_damaged_file_is_reported(installation: Installation) -> None:
    job_id = installation.train(1)
    with installation.database.read() as session:
        first, _ = lookup.artifacts(session, job_id)
    (installation.store.root / first.path).write_bytes(b"another")
    report = backup(installation.database, installation.files, io.BytesIO())
    assert len(report.damaged) == 1
    assert first.path in report.damaged[0]


def test_a_restore_over_existing_data_is_refused(
    installation: Installation, empty: Installation, tmp_path: Path
) -> None:
    installation.train(1)
    archive = make_backup(installation)
    with pytest.raises(BackupError, match="artifacts already"):
        restore(empty.database, installation.files, archive)
    with pytest.raises(BackupError, match="not empty"):
        restore(installation.database, files_of(ArtifactFolder(tmp_path / "other"), tmp_path / "other"), archive)
    assert not (tmp_path / "other").exists()
    with empty.files.scratch("new") as folder:
        (folder / "meta.json").touch()
        empty.files.add("ds_1", folder)
    archive.seek(0)
    with pytest.raises(BackupError, match="datasets already"):
        restore(empty.database, empty.files, archive)


def test_a_restored_audit_log_continues_with_new_ids(installation: Installation, empty: Installation) -> None:
    for _ in range(3):
        with installation.database.write() as session:
            session.add(AuditEntry(at_ms=now_ms(), action="tried", detail={}))
    restore(empty.database, empty.files, make_backup(installation))
    with empty.database.write() as session:
        session.add(AuditEntry(at_ms=now_ms(), action="tried again", detail={}))
    assert len(rows(empty.database)["audit"]) == 4


def test_uploaded_datasets_are_restored(installation: Installation, empty: Installation) -> None:
    installation.add_dataset()
    report = restore(empty.database, empty.files, make_backup(installation))
    assert report.files == 5
    assert read_dataset(empty.files) == read_dataset(installation.files)
    assert rows(empty.database)["uploads"] == rows(installation.database)["uploads"]


def test_a_restored_audit_log_is_verified_and_continues(installation: Installation, empty: Installation) -> None:
    """With the triggers in place, and with a range that retention has removed."""
    for days in (40, 20, 0):
        with installation.database.write() as session:
            session.add(AuditEntry(at_ms=now_ms() - days * DAY_MS, action="submit", detail={"days": days}))
        audit_seals.seal(installation.database, grace_s=0)
    assert audit_seals.remove_expired(installation.database, 30) == 1
    restore(empty.database, empty.files, make_backup(installation))
    original = verify(audit_seals.items(installation.database))
    assert (original.fault, original.removed_entries, original.entries) == (None, 1, 2)
    assert verify(audit_seals.items(empty.database), head=original.head) == original
    with empty.database.write() as session:
        session.add(AuditEntry(at_ms=now_ms(), action="submit", detail={}))
    assert audit_seals.seal(empty.database, grace_s=0) == 1
    assert verify(audit_seals.items(empty.database), head=original.head).entries == 3
    with pytest.raises(DatabaseError, match="append-only"), empty.database.write() as session:
        session.execute(delete(AuditEntry))
    assert audit_seals.remove_expired(empty.database, 10) == 1
