"""A service moves back to a store that it has used before, which still has its former id and files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import delete

from service.jobs.queries import lookup
from service.maintenance import store_id
from service.maintenance.store_migration import FORMER as FORMER_FILE
from service.maintenance.store_migration import MARKER, MigrationError
from service.runtime import failpoints
from service.storage.artifacts import ID_FILE, ArtifactDamaged
from service.storage.stores import ArtifactFolder
from service.storage.tables import Job
from tests.service.maintenance.conftest import Installation, files_of, read_dataset
from tests.service.maintenance.test_store_migration import move, named, new_bucket


@pytest.fixture
def service(installation: Installation) -> Installation:
    return installation


@pytest.fixture
def former(service: Installation, tmp_path: Path) -> ArtifactFolder:
    """The former folder of a service that has moved to another one, and has stored and deleted files since."""
    former, now = service.store, ArtifactFolder(tmp_path / "now")
    store_id.verify(service.database, former)
    deleted = service.train(2)
    service.train(2)
    service.add_dataset()
    assert move(service, former, now, tmp_path).switched
    service.store = now
    with service.database.write() as session:
        session.execute(delete(Job).where(Job.id == deleted))
    now.remove_folder(deleted)
    service.train(2)
    return former


def check_is_used(service: Installation, store: ArtifactFolder) -> None:
    """The service uses the store, which has all files that rows name, intact."""
    store_id.verify(service.database, store)
    assert len(named(service.database)) == 8
    for path, sha256 in named(service.database):
        store.read(path, sha256)
    assert read_dataset(files_of(store, store.root)) == read_dataset(service.files)
    with pytest.raises(ArtifactDamaged):
        store.open(MARKER)


def test_a_service_moves_back_and_forth(service: Installation, former: ArtifactFolder, tmp_path: Path) -> None:
    former_id, deleted = former.id, {item.path for item in former.stored()} - service.paths()
    report = move(service, service.store, former, tmp_path)
    assert (report.copied, report.present, report.damaged, report.switched) == (4, 5, [], True)
    check_is_used(service, former)
    assert former.read_id() != former_id, "processes that were not restarted since then may not use it"
    with service.database.read() as session:
        orphans = former.orphans(lambda job_ids: lookup.paths(session, job_ids), older_than_s=-1)
        assert {item.path for item in orphans} == deleted != set()
    # Around a third store, and to the one that is two moves away.
    third = ArtifactFolder(tmp_path / "third")
    assert move(service, former, third, tmp_path).copied == 9
    assert move(service, third, service.store, tmp_path).copied == 0
    check_is_used(service, service.store)


def test_a_bucket_is_used_again(service: Installation, server: str, tmp_path: Path) -> None:
    store_id.verify(service.database, service.store)
    service.train(2)
    bucket, folder = new_bucket(server), service.store
    move(service, folder, bucket, tmp_path)
    bucket_id = bucket.read_id()
    assert move(service, bucket, folder, tmp_path).copied == 0
    service.store = folder = ArtifactFolder(folder.root)  # a process that was started since then
    service.train(1)
    path, _ = named(service.database)[0]
    bucket.replace(path, b"other")
    assert move(service, folder, bucket, tmp_path).copied == 3
    assert bucket.read_id() != bucket_id
    store_id.verify(service.database, bucket)
    for path, sha256 in named(service.database):
        bucket.read(path, sha256)


def test_other_content_under_a_name_is_replaced(service: Installation, former: ArtifactFolder, tmp_path: Path) -> None:
    in_both = sorted(service.paths() & {item.path for item in former.stored()})
    size = (former.root / in_both[0]).stat().st_size
    (former.root / in_both[0]).write_bytes(b"x" * size)
    (former.root / in_both[1]).write_bytes(b"")
    (array, *_) = sorted((former.root / "datasets" / "ds_1").glob("*.npy"))
    array.write_bytes(array.read_bytes()[:-1] + b"\x01")
    assert move(service, service.store, former, tmp_path).copied == 4 + 3
    check_is_used(service, former)


@pytest.mark.stack
@pytest.mark.parametrize(
    "place",
    [
        "store_switched",
        *(
            pytest.param(place, marks=pytest.mark.nightly)
            for place in ("store_claimed", "file_migrated.2", "store_published")
        ),
    ],
)
def test_a_killed_way_back_continues(service: Installation, former: ArtifactFolder, tmp_path: Path, place: str) -> None:
    (tmp_path / "armed").mkdir()
    (tmp_path / "armed" / place).write_text("kill")
    command = [sys.executable, "-m", "tapeline", "store", "migrate"]
    command += [f"file://{service.store.root}", f"file://{former.root}", "--json"]
    environ = os.environ | {"TAPELINE_HOME": str(tmp_path), "TAPELINE_DATABASE_URL": service.database.url}
    armed = environ | {failpoints.VARIABLE: str(tmp_path / "armed")}
    killed = subprocess.run(command, env=armed, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    if place in ("file_migrated.2", "store_switched"):
        assert former.read_id() is None, "no process may use it before it is complete"
    finished = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["switched"]
    check_is_used(service, former)
    assert move(service, former, service.store, tmp_path).switched, "and back again"


def test_an_abandoned_way_back_is_begun_anew(service: Installation, former: ArtifactFolder, tmp_path: Path) -> None:
    assert not move(service, service.store, former, tmp_path, copy_only=True).switched
    third = ArtifactFolder(tmp_path / "third")
    move(service, service.store, third, tmp_path)
    assert move(service, third, former, tmp_path).switched
    check_is_used(service, former)


def test_the_store_of_another_service_stays_refused(
    service: Installation, former: ArtifactFolder, tmp_path: Path
) -> None:
    # A copy of the service, restored from a backup, has the same files.
    (former.root / ID_FILE).write_text("str_copy")
    with pytest.raises(MigrationError, match="the store str_copy of another service"):
        move(service, service.store, former, tmp_path)
    assert former.read_id() == "str_copy"
    assert not (former.root / MARKER).exists()
    store_id.verify(service.database, service.store)


def test_a_former_store_that_an_older_copy_of_the_service_uses_is_not_taken(
    service: Installation, former: ArtifactFolder, tmp_path: Path
) -> None:
    former_id, item = former.read_id(), next(iter(former.stored()))
    stored_at = time.time() - 60
    known = service.store.root / FORMER_FILE
    known.write_text(f"{former_id} {round((stored_at - 2 * 3600) * 1000)}\n")
    os.utime(former.root / item.path, (stored_at, stored_at))
    with pytest.raises(MigrationError, match=f"{item.path} was stored in .* a copy of the service uses"):
        move(service, service.store, former, tmp_path)
    assert (former.read_id(), (former.root / MARKER).exists()) == (former_id, False)


def test_a_refused_way_back_leaves_the_id(service: Installation, former: ArtifactFolder, tmp_path: Path) -> None:
    wrong, former_id = ArtifactFolder(tmp_path / "wrong"), former.read_id()
    wrong.put_all({ID_FILE: b"str_wrong", FORMER_FILE: f"{former_id}\n".encode()})
    former.put_all({MARKER: json.dumps({"from": service.store.read_id(), "to": "str_next"}).encode()})
    with pytest.raises(MigrationError, match="was interrupted"):
        move(service, wrong, former, tmp_path)
    assert former.read_id() == former_id


def test_a_service_that_an_earlier_release_moved_is_told_what_to_do(
    service: Installation, former: ArtifactFolder, tmp_path: Path
) -> None:
    (service.store.root / FORMER_FILE).unlink()
    advice = f"append the line {former.read_id()} to the file {FORMER_FILE} in {service.store.root}"
    with pytest.raises(MigrationError, match=advice):
        move(service, service.store, former, tmp_path)
    (service.store.root / FORMER_FILE).write_text(f"{former.read_id()}\n")
    assert move(service, service.store, former, tmp_path).switched
    check_is_used(service, former)
