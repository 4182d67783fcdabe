"""Stored files that are damaged are found, at once or slowly, in a folder and in a bucket."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete, update
from structlog.testing import capture_logs

from service.cli import main
from service.errors import WrongStore
from service.maintenance import file_checks, store_id
from service.maintenance.file_checks import Damage
from service.storage.artifacts import ID_FILE, ArtifactKind, ArtifactStore
from service.storage.database import Database
from service.storage.file_tables import FileCheck
from service.storage.stores import ArtifactFolder
from service.storage.tables import Artifact, Store
from service.web.core.metrics import Metrics
from tests.service.maintenance.conftest import Installation, files_of
from tests.service.storage.test_store_conformance import damage, open_bucket
from workers import scheduler

PER_HOUR = 10**9
DAY_MS = 24 * 3600 * 1000


@dataclass
class Stored:
    """A service with a job of two epochs and a dataset."""

    database: Database
    store: ArtifactStore
    folder: Path
    job_id: str

    def path(self, kind: ArtifactKind, epoch: int) -> str:
        with self.database.read() as session:
            return session.query(Artifact).filter_by(job_id=self.job_id, kind=kind, epoch=epoch).one().path

    def read_all(self) -> list[Damage]:
        return list(file_checks.read_all(self.database, files_of(self.store, self.folder), lambda count: None))

    def scrub(self, pause: Callable[[float], object] = lambda seconds: None) -> None:
        file_checks.scrub(self.database, files_of(self.store, self.folder), bytes_per_hour=PER_HOUR, pause=pause)

    def make_due(self) -> None:
        with self.database.write() as session:
            session.execute(update(FileCheck).values(started_ms=FileCheck.started_ms - DAY_MS))


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.stack)])
def stored(
    request: pytest.FixtureRequest, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Stored:
    store: ArtifactStore = ArtifactFolder(tmp_path / "artifacts")
    if request.param == "bucket":
        store = open_bucket(request.getfixturevalue("moto"), monkeypatch)
    service = Installation(database, store)  # type: ignore[arg-type]  # any store
    service.store.root = tmp_path / "artifacts"
    store_id.verify(database, store)
    service.add_dataset()
    return Stored(database, store, tmp_path / "artifacts", service.train(2))


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.stack
def test_every_damaged_file_is_named_with_its_job_and_a_remedy(stored: Stored) -> None:
    assert stored.read_all() == []
    damage(stored.store, stored.path(ArtifactKind.CHECKPOINT, 1), flip)
    damage(stored.store, stored.path(ArtifactKind.SAMPLE, 1), lambda data: data[:9])
    stored.store.remove([stored.path(ArtifactKind.SAMPLE, 2)])
    arrays = files_of(stored.store, stored.folder).names("ds_1")[1]
    damage(stored.store, f"datasets/ds_1/{arrays}", flip)
    found = {item.file: item for item in stored.read_all()}
    assert sorted(found) == ["checkpoint of epoch 1", "dataset mine", "sample of epoch 1", "sample of epoch 2"]
    assert {item.job for item in found.values()} == {stored.job_id, None}
    assert "SHA-256 differs" in found["checkpoint of epoch 1"].reason
    assert f"tapeline reproduce {stored.job_id}" in found["checkpoint of epoch 1"].remedy
    assert (found["dataset mine"].dataset or "").startswith("mine@")
    assert found["dataset mine"].path == f"datasets/ds_1/{arrays}"


def test_the_scrub_reads_within_its_rate_and_once_a_day(stored: Stored) -> None:
    pauses: list[float] = []
    stored.scrub(pauses.append)
    with stored.database.read() as session:
        names = session.query(Artifact).count() + 1
    assert sum(pauses) >= names * 2**16 * 3600 / PER_HOUR, "small files count as 64 KiB"
    again: list[float] = []
    stored.scrub(again.append)
    assert again == []
    stored.make_due()
    stored.scrub(again.append)
    assert sum(again) == pytest.approx(sum(pauses))


def test_the_scrub_names_the_job_once_per_pass_and_forgets_files_that_are_intact_again(stored: Stored) -> None:
    path = stored.path(ArtifactKind.CHECKPOINT, 2)
    damage(stored.store, path, flip)
    with capture_logs() as logs:
        stored.scrub()
    (entry,) = [entry for entry in logs if entry["event"] == "a stored file is damaged"]
    assert (entry["log_level"], entry["job"], entry["path"]) == ("error", stored.job_id, path)
    state = file_checks.read_state(stored.database)
    assert [item.path for item in state.damaged] == [path]
    assert state.finished_s is not None
    damage(stored.store, path, flip)
    stored.make_due()
    stored.scrub()
    assert file_checks.read_state(stored.database).damaged == []


def test_the_scrub_continues_where_it_was_interrupted(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_checks, "_SAVE_INTERVAL_S", -1.0)
    pauses: list[float] = []
    stored.scrub(pauses.append)
    stored.make_due()
    first: list[float] = []

    def stop(seconds: float) -> None:
        first.append(seconds)
        if sum(first) > sum(pauses) / 2:
            raise OSError("stopped")

    with pytest.raises(OSError, match="stopped"):
        stored.scrub(stop)
    rest: list[float] = []
    stored.scrub(rest.append)
    assert 0 < sum(rest) < sum(pauses) * 0.7
    assert file_checks.read_state(stored.database).finished_s is not None


def test_a_file_that_is_deleted_meanwhile_is_not_damaged(stored: Stored) -> None:
    path = stored.path(ArtifactKind.SAMPLE, 1)

    def remove(seconds: float) -> None:
        with stored.database.write() as session:
            session.execute(delete(Artifact).where(Artifact.path == path))
        stored.store.remove([path])

    stored.scrub(remove)
    assert file_checks.read_state(stored.database).damaged == []


def test_another_scheduler_that_reads_the_same_files_stops(stored: Stored) -> None:
    with stored.database.write() as session:
        session.add(FileCheck(number=1, position="", started_ms=1))

    def overtake(seconds: float) -> None:
        with stored.database.write() as session:
            session.execute(update(FileCheck).values(position="uploads/x"))

    stored.scrub(overtake)
    with stored.database.read() as session:
        assert session.get_one(FileCheck, 1).position == "uploads/x"


@pytest.mark.parametrize("stored", ["folder"], indirect=True)
def test_a_folder_that_is_not_mounted_any_more_has_no_damaged_files(stored: Stored) -> None:
    stored.folder.rename(stored.folder.with_name("elsewhere"))
    with pytest.raises(WrongStore):
        stored.read_all()
    assert file_checks.read_state(stored.database).damaged == []


@pytest.mark.parametrize("stored", ["folder"], indirect=True)
def test_a_file_that_cannot_be_read_is_damaged_if_the_store_responds(stored: Stored) -> None:
    path = stored.folder / stored.path(ArtifactKind.SAMPLE, 1)
    path.unlink()
    path.symlink_to(stored.folder / ID_FILE)
    (found,) = stored.read_all()
    assert found.file == "sample of epoch 1"


@pytest.mark.parametrize("stored", ["folder"], indirect=True)
def test_the_metric_counts_damaged_files_that_rows_still_name(stored: Stored) -> None:
    stored.store.remove([stored.path(ArtifactKind.SAMPLE, 1), stored.path(ArtifactKind.SAMPLE, 2)])
    stored.scrub()
    with stored.database.write() as session:
        session.execute(delete(Artifact).where(Artifact.kind == ArtifactKind.SAMPLE, Artifact.epoch == 2))
    page = Metrics(stored.database).page().decode()
    (family,) = [family for family in text_string_to_metric_families(page) if family.name == "tapeline_damaged_files"]
    assert [sample.value for sample in family.samples] == [1.0]


@pytest.mark.parametrize("stored", ["folder"], indirect=True)
def test_the_doctor_reads_all_files_on_request(stored: Stored, tmp_path: Path) -> None:
    environ = {"TAPELINE_HOME": str(tmp_path), "TAPELINE_DATABASE_URL": stored.database.url}

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["doctor", *arguments], env=environ)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result.exit_code, result.stdout

    document = json.loads(run("--files", "--json")[1])
    assert (document["files"]["checked"], document["files"]["damaged"]) == (5, [])
    damage(stored.store, stored.path(ArtifactKind.CHECKPOINT, 2), flip)
    assert "FAIL files" not in run()[1], "nothing has read it"
    code, output = run("--files")
    assert code == 1
    assert f"FAIL files: checkpoint of epoch 2 of {stored.job_id} is damaged" in output
    assert f"tapeline reproduce {stored.job_id}" in output
    (found,) = json.loads(run("--files", "--json")[1])["files"]["damaged"]
    assert (found["job"], found["file"]) == (stored.job_id, "checkpoint of epoch 2")
    assert "FAIL files" in run()[1], "what was found is remembered"
    damage(stored.store, stored.path(ArtifactKind.CHECKPOINT, 2), flip)
    run("--files")
    assert "FAIL files" not in run()[1]


@pytest.mark.parametrize("stored", ["folder"], indirect=True)
def test_the_scheduler_reads_nothing_without_a_rate_or_in_the_store_of_another_service(stored: Stored) -> None:
    files = files_of(stored.store, stored.folder)
    scheduler.read_stored_files(stored.database, files, 0)
    (stored.folder / ID_FILE).write_text("str_other")
    scheduler.read_stored_files(stored.database, files, 10**15)
    assert file_checks.read_state(stored.database).finished_s is None
    with stored.database.read() as session:
        (stored.folder / ID_FILE).write_text(session.get_one(Store, 1).id)
    scheduler.read_stored_files(stored.database, files, 10**15)
    assert file_checks.read_state(stored.database).finished_s is not None
