"""The artifact folder that belongs to a database."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from service.maintenance import store_id
from service.maintenance.store_id import WrongStore, verify
from service.storage import artifact_rows
from service.storage.artifacts import ArtifactFolder, ArtifactKind
from service.storage.database import Database
from service.storage.tables import Store
from tests.workers.conftest import WorkerHarness


@pytest.fixture
def database(private_url: str) -> Iterator[Database]:
    with closing(Database(private_url)) as database:
        yield database


def test_the_first_folder_is_registered_and_others_are_refused(database: Database, tmp_path: Path) -> None:
    verify(database, tmp_path / "own")
    verify(database, tmp_path / "own")
    with pytest.raises(WrongStore, match="mount the shared folder"):
        verify(database, tmp_path / "other")
    registered = (tmp_path / "own" / store_id.FILE).read_text()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / store_id.FILE).write_text(registered)  # as the message advises
    verify(database, tmp_path / "other")
    (tmp_path / "other" / store_id.FILE).write_text("str_another")
    with pytest.raises(WrongStore, match="str_another"):
        verify(database, tmp_path / "other")


def test_processes_that_start_together_register_one_folder(database: Database, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: _outcome(database, tmp_path / "own"), range(8)))
    assert set(results) <= {None, OSError}, "while the file is written, its reader tries again later"
    assert None in results
    verify(database, tmp_path / "own")
    with ThreadPoolExecutor(8) as pool:
        folders = [tmp_path / str(number) for number in range(8)]
        assert set(pool.map(lambda folder: _outcome(database, folder), folders)) == {WrongStore}


def _outcome(database: Database, root: Path) -> type[Exception] | None:
    try:
        verify(database, root)
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
        verify(database, tmp_path / "empty")
    with database.read() as session:
        assert session.get(Store, 1) is None
    assert not (tmp_path / "empty").exists()
    verify(database, tmp_path / "own")


def test_a_moved_folder_keeps_its_id(database: Database, tmp_path: Path) -> None:
    verify(database, tmp_path / "own")
    (tmp_path / "own").rename(tmp_path / "moved")
    verify(database, tmp_path / "moved")
