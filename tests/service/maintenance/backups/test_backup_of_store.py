"""Backups of a service on an object store, with and without files, are restored into either kind of store."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import func, select

from service.cli import main
from service.maintenance import store_id
from service.maintenance.backups.backup import BackupError, backup, restore, verify
from service.maintenance.store_migration import migrate
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database
from service.storage.object_store import ObjectStore
from service.storage.stores import ArtifactFolder
from service.storage.tables import Artifact, Job
from tests.object_servers import BUCKET, FaultyProxy
from tests.service.maintenance.conftest import Installation, files_of, read_dataset


def new_bucket(server: str) -> ObjectStore:
    return ObjectStore(f"s3://{BUCKET}/backups/{secrets.token_hex(4)}", endpoint=server, lease_s=15)


@pytest.fixture
def bucket(installation: Installation, server: str, tmp_path: Path) -> ObjectStore:
    """The store of the installation, with the files of a job and of a dataset."""
    installation.train(3)
    installation.add_dataset()
    files = files_of(new_bucket(server), tmp_path)
    migrate(installation.database, installation.files, files, home=tmp_path, progress=lambda done, total: None)
    assert isinstance(files.store, ObjectStore)
    return files.store


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Installation]:
    with closing(Database(f"sqlite:///{tmp_path / 'new' / 'tapeline.db'}")) as database:
        yield Installation(database, ArtifactFolder(tmp_path / "new" / "artifacts"))


def make(installation: Installation, store: ArtifactStore, *, with_files: bool) -> io.BytesIO:
    target = io.BytesIO()
    report = backup(installation.database, files_of(store, installation.store.root), target, with_files=with_files)
    assert (report.damaged, report.files) == ([], 11 if with_files else 0)
    target.seek(0)
    assert verify(io.BytesIO(target.getvalue())).rows == report.rows
    return target


def check_restored(database: Database, store: ArtifactStore, count: int = 6) -> None:
    with database.read() as session:
        rows = session.scalars(select(Artifact)).all()
        size = session.scalar(select(func.sum(Job.size_bytes)))
    assert len(rows) == count
    assert size == sum(row.size_bytes for row in rows)
    for row in rows:
        store.read(row.path, row.sha256)
    store_id.verify(database, store)


@pytest.mark.stack
def test_a_backup_with_files_is_restored_into_both_kinds(
    installation: Installation, bucket: ObjectStore, empty: Installation, server: str, tmp_path: Path
) -> None:
    archive = make(installation, bucket, with_files=True)
    restore(empty.database, empty.files, io.BytesIO(archive.getvalue()))
    check_restored(empty.database, empty.store)
    assert read_dataset(empty.files) == read_dataset(installation.files)
    with closing(Database(f"sqlite:///{tmp_path / 'third' / 'tapeline.db'}")) as database:
        other = Installation(database, ArtifactFolder(tmp_path / "third" / "artifacts"))
        into = new_bucket(server)
        restore(database, files_of(into, other.store.root), archive)
        assert read_dataset(files_of(into, other.store.root)) == read_dataset(installation.files)
        check_restored(database, into)


def test_a_backup_without_files_is_restored_beside_the_store(
    installation: Installation, bucket: ObjectStore, empty: Installation
) -> None:
    archive = make(installation, bucket, with_files=False)
    before = sorted(item.path for item in bucket.stored())
    report = restore(empty.database, files_of(bucket, empty.store.root), archive)
    assert (report.store, report.damaged) == (bucket.address, [])
    check_restored(empty.database, bucket)
    assert sorted(item.path for item in bucket.stored()) == before


def test_files_that_are_lost_since_the_backup_are_named(
    installation: Installation, bucket: ObjectStore, empty: Installation
) -> None:
    archive = make(installation, bucket, with_files=False)
    lost, shortened = sorted(item.path for item in bucket.stored())[:2]
    bucket.remove([lost, shortened])
    bucket.put_all({shortened: b"short"})
    bucket.remove(["datasets/ds_1/train-labels-idx1-ubyte.npy"])
    report = restore(empty.database, files_of(bucket, empty.store.root), archive)
    assert sorted(line.partition(":")[0] for line in report.damaged) == sorted([lost, shortened, "the dataset mine"])
    check_restored(empty.database, bucket, count=4)


def test_without_its_store_nothing_is_restored(
    installation: Installation, bucket: ObjectStore, empty: Installation, server: str
) -> None:
    archive = make(installation, bucket, with_files=False)
    for store in (empty.store, new_bucket(server)):
        with pytest.raises(BackupError, match=f"none of the 6 files.*it was {bucket.address}"):
            restore(empty.database, files_of(store, empty.store.root), io.BytesIO(archive.getvalue()))
    proxy = FaultyProxy(server)
    try:
        silent = ObjectStore(bucket.address, endpoint=proxy.url, lease_s=3)
        proxy.fault = lambda exchange: (503, b"")
        with pytest.raises(BackupError, match="when the store responds"):
            restore(empty.database, files_of(silent, empty.store.root), io.BytesIO(archive.getvalue()))
    finally:
        proxy.close()
    restore(
        empty.database, files_of(installation.store, empty.store.root), archive
    )  # the previous store still has them
    check_restored(empty.database, installation.store)


def test_the_command_leaves_the_files_in_the_bucket_unless_asked(
    installation: Installation, bucket: ObjectStore, server: str, tmp_path: Path
) -> None:
    environ = {"TAPELINE_HOME": str(tmp_path / "home"), "TAPELINE_DATABASE_URL": installation.database.url}
    environ |= {"TAPELINE_STORE": bucket.address, "TAPELINE_STORE_ENDPOINT": server}
    for options, files in (([], "0 files"), (["--files"], "11 files")):
        done = CliRunner().invoke(main, ["backup", str(tmp_path / "saved.tar"), *options], env=environ)
        assert done.exit_code == 0, done.output
        assert files in done.output
        assert (f"which are in {bucket.address}" in done.output) is (not options)
    checked = CliRunner().invoke(main, ["gc", "--delete"], env=environ)
    assert checked.exit_code == 0, checked.output
    assert "0 orphaned files" in checked.output
