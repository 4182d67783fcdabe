"""A service moves to another store: between a folder and a real server that speaks S3, in both directions."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from service.cli import main
from service.errors import WrongStore
from service.jobs.queries import lookup
from service.maintenance import store_id
from service.maintenance.store_migration import MARKER, MigrationError, MigrationReport, migrate
from service.runtime import failpoints
from service.storage.artifacts import ArtifactDamaged, ArtifactKind, ArtifactStore
from service.storage.database import Database
from service.storage.object_store import ObjectStore
from service.storage.stores import ArtifactFolder
from service.storage.tables import Artifact
from tests.object_servers import BUCKET, FaultyProxy
from tests.service.maintenance.conftest import Installation, files_of, read_dataset


@pytest.fixture
def service(installation: Installation) -> Installation:
    """A service with a folder as its store."""
    store_id.verify(installation.database, installation.store)
    return installation


def new_bucket(server: str) -> ObjectStore:
    return ObjectStore(f"s3://{BUCKET}/migrated/{secrets.token_hex(4)}", endpoint=server, lease_s=15)


def move(
    service: Installation, source: ArtifactStore, target: ArtifactStore, home: Path, **options: bool
) -> MigrationReport:
    files = files_of(source, home), files_of(target, home)
    return migrate(service.database, *files, home=home, progress=lambda done, total: None, **options)


def named(database: Database) -> list[tuple[str, str]]:
    with database.read() as session:
        return [(row.path, row.sha256) for row in session.scalars(select(Artifact).order_by(Artifact.path))]


def check_complete(database: Database, store: ArtifactStore) -> None:
    """The service uses the store, which has all files and nothing else."""
    store_id.verify(database, store)
    for path, sha256 in named(database):
        store.read(path, sha256)
    assert sorted(item.path for item in store.stored()) == [path for path, _ in named(database)]
    with pytest.raises(ArtifactDamaged):
        store.open(MARKER)


def test_a_service_moves_into_a_bucket_and_back(service: Installation, server: str, tmp_path: Path) -> None:
    service.train(3)
    service.add_dataset(count=200_000)  # in parts
    dataset = read_dataset(service.files)
    bucket = new_bucket(server)
    report = move(service, service.store, bucket, tmp_path)
    assert (report.copied, report.damaged, report.switched, report.waiting) == (7, [], True, False)
    check_complete(service.database, bucket)
    assert read_dataset(files_of(bucket, tmp_path)) == dataset
    with pytest.raises(WrongStore):
        store_id.verify(service.database, ArtifactFolder(service.store.root))
    assert move(service, service.store, bucket, tmp_path).copied == 0, "it is done"
    service.store = bucket  # type: ignore[assignment]  # any store
    service.train(1)
    folder = ArtifactFolder(tmp_path / "new")
    assert move(service, bucket, folder, tmp_path).copied == 9
    check_complete(service.database, folder)
    assert read_dataset(files_of(folder, tmp_path)) == dataset
    assert not list(tmp_path.glob("*.journal"))


@pytest.mark.stack
@pytest.mark.parametrize(
    "place",
    [
        "file_migrated.4",
        "store_switched",
        *(
            pytest.param(place, marks=pytest.mark.nightly)
            for place in ("object_stored", "object_stored.ds_1", "object_stored.checkpoint", "store_published")
        ),
    ],
)
def test_a_killed_migration_continues(service: Installation, server: str, tmp_path: Path, place: str) -> None:
    service.train(5)
    service.add_dataset()
    bucket = new_bucket(server)
    (tmp_path / "armed").mkdir()
    (tmp_path / "armed" / place).write_text("kill")
    command = [sys.executable, "-m", "tapeline", "store", "migrate", f"file://{service.store.root}", bucket.address]
    command += ["--to-endpoint", server, "--json"]
    environ = os.environ | {"TAPELINE_HOME": str(tmp_path), "TAPELINE_DATABASE_URL": service.database.url}
    armed = environ | {failpoints.VARIABLE: str(tmp_path / "armed")}
    killed = subprocess.run(command, env=armed, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    if place != "store_published":
        assert bucket.read_id() is None, "no process may use it before it is complete"
    finished = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    document = json.loads(finished.stdout)
    assert document["switched"]
    if place == "file_migrated.4":
        assert document["present"] >= 4
        assert document["copied"] + document["present"] == 11
    store_id.verify(service.database, bucket)
    for path, sha256 in named(service.database):
        bucket.read(path, sha256)
    assert read_dataset(files_of(bucket, tmp_path)) == read_dataset(service.files)


def test_files_that_workers_store_meanwhile_are_copied_or_refused(
    service: Installation, server: str, tmp_path: Path
) -> None:
    service.train(2)
    bucket, stop, refused = new_bucket(server), threading.Event(), threading.Event()

    def write() -> None:
        try:
            while not stop.is_set():
                service.train(2)
        except WrongStore:
            refused.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        report = move(service, service.store, bucket, tmp_path)
        assert refused.wait(60), "a row for a file in the previous store would be lost"
    finally:
        stop.set()
        writer.join()
    assert report.switched
    store_id.verify(service.database, bucket)
    for path, sha256 in named(service.database):
        bucket.read(path, sha256)


def test_missing_and_damaged_files_are_named_and_the_rest_is_copied(
    service: Installation, server: str, tmp_path: Path
) -> None:
    job_id = service.train(3)
    with service.database.read() as session:
        lost, damaged, *intact = [row.path for row in lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT)]
    (service.store.root / lost).unlink()
    (service.store.root / damaged).write_bytes(b"other")
    bucket = new_bucket(server)
    report = move(service, service.store, bucket, tmp_path)
    assert [line.partition(":")[0] for line in sorted(report.damaged)] == sorted([lost, damaged])
    assert (report.copied, report.switched) == (4, False)
    store_id.verify(service.database, service.store)
    report = move(service, service.store, bucket, tmp_path, skip_damaged=True)
    assert (report.copied, report.present, len(report.damaged), report.switched) == (0, 4, 2, True)
    assert intact[0] in {item.path for item in bucket.stored()}
    store_id.verify(service.database, bucket)


def test_a_copy_of_other_bytes_is_replaced_or_reported(service: Installation, server: str, tmp_path: Path) -> None:
    service.train(2)
    bucket = new_bucket(server)
    assert move(service, service.store, bucket, tmp_path, copy_only=True).copied == 4
    path, _ = named(service.database)[0]
    bucket.remove([path])
    bucket.put_all({path: b"other"})
    for journal in tmp_path.glob("*.journal"):
        journal.unlink()
    assert move(service, service.store, bucket, tmp_path).copied == 1
    check_complete(service.database, bucket)


def test_the_store_is_not_replaced_while_the_new_one_fails(service: Installation, server: str, tmp_path: Path) -> None:
    service.train(2)
    proxy = FaultyProxy(server)
    try:
        bucket = new_bucket(proxy.url)
        proxy.fault = lambda exchange: (
            (403, b"") if exchange.method == "PUT" and "/checkpoint/" in exchange.path else None
        )
        with pytest.raises(OSError, match="credentials"):
            move(service, service.store, bucket, tmp_path)
        store_id.verify(service.database, service.store)
        proxy.fault = lambda exchange: None
        move(service, service.store, bucket, tmp_path)
        check_complete(service.database, bucket)
    finally:
        proxy.close()


def test_wrong_stores_are_refused(service: Installation, tmp_path: Path) -> None:
    service.train(1)
    other = ArtifactFolder(tmp_path / "other")
    other.create("store-id", b"str_other")
    with pytest.raises(MigrationError, match="str_other of another service"):
        move(service, service.store, other, tmp_path)
    with pytest.raises(MigrationError, match="same store"):
        move(service, service.store, ArtifactFolder(service.store.root), tmp_path)
    (tmp_path / "link").symlink_to(service.store.root)
    with pytest.raises(MigrationError, match="same store"):
        move(service, service.store, ArtifactFolder(tmp_path / "link"), tmp_path)
    with pytest.raises(WrongStore):
        move(service, other, ArtifactFolder(tmp_path / "new"), tmp_path)
    full = ArtifactFolder(tmp_path / "full")
    full.write("job_1", ArtifactKind.SAMPLE, 1, 1, b"of somebody")
    with pytest.raises(MigrationError, match="there are files"):
        move(service, service.store, full, tmp_path)
    assert move(service, service.store, ArtifactFolder(tmp_path / "begun"), tmp_path, copy_only=True).copied == 2
    with pytest.raises(MigrationError, match="interrupted"):
        move(service, other, ArtifactFolder(tmp_path / "begun"), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        move(service, service.store, ArtifactFolder(tmp_path / "file"), tmp_path)
    store_id.verify(service.database, service.store)


def test_two_commands_do_not_migrate_at_once(service: Installation, tmp_path: Path) -> None:
    service.train(1)

    def start_another(done: int, total: int) -> None:
        with pytest.raises(MigrationError, match="another migration"):
            move(service, service.store, ArtifactFolder(tmp_path / "other"), tmp_path)

    new = ArtifactFolder(tmp_path / "new")
    assert migrate(
        service.database, service.files, files_of(new, tmp_path), home=tmp_path, progress=start_another
    ).switched
    check_complete(service.database, new)
    assert not (tmp_path / "other").exists()


def test_the_command_says_what_to_do_next(
    service: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = service.train(1)
    monkeypatch.setenv("TAPELINE_DATABASE_URL", service.database.url)
    monkeypatch.setenv("TAPELINE_HOME", str(tmp_path))
    source, target = f"file://{service.store.root}", f"file://{tmp_path / 'new'}"
    for wrong, message in (("ftp://host/x", "TAPELINE_STORE must be file"), (source, "are the same store")):
        refused = CliRunner().invoke(main, ["store", "migrate", source, wrong])
        assert (refused.exit_code, message in refused.output) == (1, True), refused.output
    with service.database.read() as session:
        (path,) = [row.path for row in lookup.artifacts(session, job_id, ArtifactKind.SAMPLE)]
    (service.store.root / path).rename(tmp_path / "lost")
    damaged = CliRunner().invoke(main, ["store", "migrate", source, target])
    assert damaged.exit_code == 1
    assert path in damaged.output
    assert "was not moved" in damaged.output
    (tmp_path / "lost").rename(service.store.root / path)
    done = CliRunner().invoke(main, ["store", "migrate", source, target])
    assert done.exit_code == 0, done.output
    assert "copied 1 file " in done.output
    assert f"TAPELINE_STORE={target}" in done.output
    check_complete(service.database, ArtifactFolder(tmp_path / "new"))
