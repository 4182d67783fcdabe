"""A service that is gone, and comes back from its backup: from either database into either."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from alembic import command
from sqlalchemy import select, text

from migrations.upgrade import config, exclusively, is_current
from service.contract import jobs, leases
from service.contract.artifacts import ArtifactFolder
from service.contract.database import Database, now_ms
from service.contract.rescue import rescue
from service.contract.tables import AuditEntry, Base, Upload
from service.contract.uploads import UploadFolder
from service.upkeep.backup import BackupError, backup, restore
from tests.service.upkeep.conftest import House


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """Where nothing is yet, not even a schema."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'new' / 'tapeline.db'}"
    else:
        name, server = f"empty_{uuid4().hex}", request.getfixturevalue("postgres_server")
        with psycopg.connect(f"user=postgres dbname=postgres host={server}", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        url = f"postgresql+psycopg://postgres:@/{name}?host={server}"
    made = House(Database(url), ArtifactFolder(tmp_path / "new" / "artifacts"))
    yield made
    made.database.close()


def rows(database: Database) -> dict[str, list[dict[str, Any]]]:
    with database.read() as session:
        return {
            table.name: sorted((dict(row) for row in session.execute(select(table)).mappings()), key=repr)
            for table in Base.metadata.sorted_tables
            if table.name != "workers"
        }


def copy(house: House) -> io.BytesIO:
    target = io.BytesIO()
    assert backup(house.database, house.store, house.received, target).damaged == []
    target.seek(0)
    return target


def test_everything_comes_back(house: House, empty: House) -> None:
    ended, running = house.train(), house.train(ended_days_ago=None)
    saved = copy(house)
    report = restore(empty.database, empty.store, empty.received, saved)
    assert report.files == 20
    assert is_current(empty.database)
    assert rows(empty.database) == rows(house.database)
    assert empty.paths() == house.paths()
    assert empty.epochs_kept(ended) == [1, 2, 3, 4, 5]
    # And it goes on: what ran is taken back, and the log goes on without a hole.
    with empty.database.write() as session:
        session.execute(text("UPDATE jobs SET lease_expires_ms = 1 WHERE status = 'running'"))
    assert rescue(empty.database) == [running]
    held = leases.claim(empty.database, "another", 60.0)
    assert held is not None
    assert (held.job_id, held.lease) == (running, 2)
    with empty.database.read() as session:
        assert jobs.get(session, running).epoch == 5


def test_a_backup_of_an_older_schema_is_brought_up_to_date(house: House, empty: House) -> None:
    job_id = house.train()
    saved = copy(house)
    old = "0003"
    with exclusively(house.database) as connection:
        command.downgrade(config(connection), old)
        reflected = {row[0] for row in connection.execute(text("SELECT id FROM jobs"))}
    assert reflected == {job_id}
    changed = io.BytesIO()
    with tarfile.open(fileobj=saved) as source, tarfile.open(fileobj=changed, mode="w|") as target:
        counts: dict[str, int] = {}
        for member in source:
            content = source.extractfile(member)
            assert content is not None
            data = content.read()
            table = member.name.split("/")[1] if member.name.startswith("rows/") else None
            if table in ("audit", "api_keys", "browser_sessions", "uploads"):
                continue
            if member.name == "manifest.json":
                data = json.dumps({"format": 1, "schema": old}).encode()
            member.size = len(data)
            target.addfile(member, io.BytesIO(data))
            counts[member.name] = 1
    changed.seek(0)
    report = restore(empty.database, empty.store, empty.received, changed)
    assert report.rows["jobs"] == 1
    assert is_current(empty.database)
    assert empty.epochs_kept(job_id) == [1, 2, 3, 4, 5]


def test_a_file_that_was_pruned_meanwhile_is_left_out_with_its_row(house: House, empty: House) -> None:
    job_id = house.train()
    with house.database.read() as session:
        first, *_ = jobs.artifacts(session, job_id)

    class Pruning(ArtifactFolder):
        """Removes a checkpoint, as a running job does, between the rows and the files."""

        def read(self, path: str, sha256: str) -> bytes:
            if path == first.path and (self.root / path).exists():
                with house.database.write() as session:
                    session.delete(session.get_one(type(first), first.id))
                self.remove([path])
            return super().read(path, sha256)

    target = io.BytesIO()
    report = backup(house.database, Pruning(house.store.root), house.received, target)
    assert (report.files, report.damaged) == (9, [])
    target.seek(0)
    restore(empty.database, empty.store, empty.received, target)
    assert empty.epochs_kept(job_id) == [2, 3, 4, 5]


def test_a_damaged_file_is_told_of(house: House) -> None:
    job_id = house.train(1)
    with house.database.read() as session:
        first, _ = jobs.artifacts(session, job_id)
    (house.store.root / first.path).write_bytes(b"another")
    report = backup(house.database, house.store, house.received, io.BytesIO())
    assert len(report.damaged) == 1
    assert first.path in report.damaged[0]


def renamed(data: bytes, before: str, after: str) -> bytes:
    """The same tar with other names in it."""
    changed = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as source, tarfile.open(fileobj=changed, mode="w|") as target:
        for member in source:
            content = source.extractfile(member)
            member.name = member.name.replace(before, after)
            target.addfile(member, content)
    return changed.getvalue()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: data[:1000], "no backup|cut off"),
        (lambda data: data[: len(data) - 5 * 1024 - data[::-1].index(b"}") // 512 * 512], "not whole|cut off"),
        (lambda data: b"hello " * 500, "no backup"),
        (lambda data: data.replace(b'{"format": 1', b'{"format": 9'), "another version"),
        (lambda data: data.replace(b'"schema": "0', b'"schema": "9'), "newer version"),
        (lambda data: renamed(data, "files/job_", "files/../b_"), "no part of a backup"),
        (lambda data: data.replace(b" 1job_", b" 1jxb_", 1), "damaged"),
    ],
)
def test_what_is_no_whole_backup_changes_nothing(
    house: House, tmp_path: Path, spoil: Callable[[bytes], bytes], reason: str
) -> None:
    house.train(2)
    database = Database(f"sqlite:///{tmp_path / 'other.db'}")
    spoiled = spoil(copy(house).getvalue())
    with pytest.raises(BackupError, match=reason):
        restore(database, ArtifactFolder(tmp_path / "other"), UploadFolder(tmp_path / "other"), io.BytesIO(spoiled))
    with database.engine.connect() as connection:
        assert "jobs" not in {row[0] for row in connection.execute(text("SELECT name FROM sqlite_master"))}
    database.close()
    assert not (tmp_path / "b_").exists()


def test_nothing_is_restored_over_something(house: House, tmp_path: Path) -> None:
    house.train(1)
    saved = copy(house)
    with pytest.raises(BackupError, match="artifacts already"):
        restore(house.database, house.store, house.received, saved)
    saved.seek(0)
    with pytest.raises(BackupError, match="not empty"):
        restore(house.database, ArtifactFolder(tmp_path / "other"), UploadFolder(tmp_path / "other"), saved)


def test_the_audit_goes_on_with_new_numbers(house: House, empty: House) -> None:
    for _ in range(3):
        with house.database.write() as session:
            session.add(AuditEntry(at_ms=now_ms(), action="tried", detail={}))
    restore(empty.database, empty.store, empty.received, copy(house))
    with empty.database.write() as session:
        session.add(AuditEntry(at_ms=now_ms(), action="tried again", detail={}))
    assert len(rows(empty.database)["audit"]) == 4


def test_data_sets_that_people_sent_come_back(house: House, empty: House) -> None:
    folder = house.received.begin("ds_1")
    arrays = folder / "whole"
    arrays.mkdir()
    (arrays / "train-images.npy").write_bytes(b"pixels" * 1000)
    (arrays / "train-labels.npy").write_bytes(b"labels")
    house.received.finish("ds_1", arrays)
    values = {"image_rows": 2, "image_columns": 3, "classes": 4, "train_count": 5, "validation_count": 6}
    with house.database.write() as session:
        session.add(Upload(id="ds_1", owner="", name="mine", sha256="sha256:1", size_bytes=7, created_ms=8, **values))
    report = restore(empty.database, empty.store, empty.received, copy(house))
    assert report.files == 2
    found = {name: path.read_bytes() for name, path in empty.received.files("ds_1").items()}
    assert found == {"train-images.npy": b"pixels" * 1000, "train-labels.npy": b"labels"}
    assert rows(empty.database)["uploads"] == rows(house.database)["uploads"]
