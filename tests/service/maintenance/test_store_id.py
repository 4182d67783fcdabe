"""The artifact folder that belongs to a database."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select, update

from service.errors import WrongStore
from service.maintenance.store_id import verify
from service.storage import artifact_rows
from service.storage.artifacts import ID_FILE, ArtifactKind
from service.storage.database import Database
from service.storage.stores import ArtifactFolder
from service.storage.tables import Artifact, Store
from tests.workers.conftest import WorkerHarness


@pytest.fixture
def database(private_url: str) -> Iterator[Database]:
    with closing(Database(private_url)) as database:
        yield database


def test_the_first_folder_is_registered_and_others_are_refused(database: Database, tmp_path: Path) -> None:
    verify(database, ArtifactFolder(tmp_path / "own"))
    verify(database, ArtifactFolder(tmp_path / "own"))
    with pytest.raises(WrongStore, match="or mount its folder"):
        verify(database, ArtifactFolder(tmp_path / "other"))
    registered = (tmp_path / "own" / ID_FILE).read_text()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ID_FILE).write_text(registered)  # as the message advises
    verify(database, ArtifactFolder(tmp_path / "other"))
    (tmp_path / "other" / ID_FILE).write_text("str_another")
    with pytest.raises(WrongStore, match="str_another"):
        verify(database, ArtifactFolder(tmp_path / "other"))


def test_processes_that_start_together_register_one_folder(database: Database, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: _outcome(database, tmp_path / "own"), range(8)))
    assert set(results) <= {None, OSError}, "while the file is written, its reader tries again later"
    assert None in results
    verify(database, ArtifactFolder(tmp_path / "own"))
    with ThreadPoolExecutor(8) as pool:
        folders = [tmp_path / str(number) for number in range(8)]
        assert set(pool.map(lambda folder: _outcome(database, folder), folders)) == {WrongStore}


def _outcome(database: Database, root: Path) -> type[Exception] | None:
    try:
        verify(database, ArtifactFolder(root))
    except (WrongStore, OSError) as error:
        return WrongStore if isinstance(error, WrongStore) else OSError
    return None


def test_a_folder_without_the_files_of_the_database_is_not_registered(database: Database, tmp_path: Path) -> None:
    """A database of an earlier version has no store yet: the first process with the right folder registers it."""
    harness = WorkerHarness(tmp_path, database)
    job_id = harness.submit()
    file = ArtifactFolder(tmp_path / "own").write(job_id, ArtifactKind.CHECKPOINT, 1, 1, b"weights")
    with database.write() as session:
        session.add(artifact_rows.create(job_id, file, lease=1))
    with pytest.raises(WrongStore, match="none of the newest files"):
        verify(database, ArtifactFolder(tmp_path / "empty"))
    with database.read() as session:
        assert session.get(Store, 1) is None
    assert not (tmp_path / "empty").exists()
    verify(database, ArtifactFolder(tmp_path / "own"))


@pytest.mark.parametrize("path", ["job_1/sample/1.png", "datasets/ds_1/meta.json"])
def test_an_empty_database_does_not_adopt_the_files_of_another(database: Database, tmp_path: Path, path: str) -> None:
    """It would take all of them for orphans."""
    store = ArtifactFolder(tmp_path / "own")
    store.create(ID_FILE, b"str_of_another")
    store.put_all({path: b"of another"})
    for _ in range(2):
        with pytest.raises(WrongStore, match=r"str_of_another of another database.*remove the file store-id there"):
            verify(database, store)
    with database.read() as session:
        assert session.get(Store, 1) is None
    (tmp_path / "own" / ID_FILE).unlink()  # as the message advises
    verify(database, store)


def test_an_empty_store_of_another_database_is_adopted(database: Database, tmp_path: Path) -> None:
    store = ArtifactFolder(tmp_path / "own")
    store.create(ID_FILE, b"str_of_another")
    verify(database, store)
    assert store.id == "str_of_another"


def test_a_moved_folder_keeps_its_id(database: Database, tmp_path: Path) -> None:
    verify(database, ArtifactFolder(tmp_path / "own"))
    (tmp_path / "own").rename(tmp_path / "moved")
    verify(database, ArtifactFolder(tmp_path / "moved"))


def test_no_row_is_committed_for_a_file_in_the_previous_store(database: Database, tmp_path: Path) -> None:
    harness = WorkerHarness(tmp_path, database)
    job_id = harness.submit()
    store = ArtifactFolder(tmp_path / "own")
    verify(database, store)
    for epoch, registered in enumerate([store.read_id(), "str_next"], start=1):
        file = store.write(job_id, ArtifactKind.ONNX, epoch, 0, b"model")
        with database.write() as session:
            session.execute(update(Store).values(id=registered))
        if epoch == 1:
            with database.write() as session:
                artifact_rows.replace(session, job_id, file)
        else:
            with pytest.raises(WrongStore, match="moved to another store"), database.write() as session:
                artifact_rows.replace(session, job_id, file)
    with database.read() as session:
        assert session.scalars(select(Artifact.epoch)).all() == [1]
