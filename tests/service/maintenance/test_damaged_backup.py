"""Backups that are damaged, truncated or crafted, restores that are killed, and readers that stall."""

from __future__ import annotations

import fcntl
import io
import itertools
import json
import os
import random
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import event, func, inspect, select, text

from migrations.upgrade import exclusively, upgrade
from service.cli import main
from service.maintenance.backup import BackupError, backup, restore, verify
from service.maintenance.parts import read_parts
from service.storage.tables import Epoch, Job, Upload
from tests.service.maintenance.conftest import House
from tests.service.maintenance.test_backup import copy, empty, rewritten, rows

__all__ = ["empty"]

FLIPS = 40


def add_dataset(house: House) -> None:
    folder = house.received.begin("ds_1")
    arrays = folder / "whole"
    arrays.mkdir()
    (arrays / "train-images.npy").write_bytes(random.Random(0).randbytes(5000))
    (arrays / "train-labels.npy").write_bytes(b"labels")
    house.received.finish("ds_1", arrays)
    values = {"image_rows": 2, "image_columns": 3, "classes": 4, "train_count": 5, "validation_count": 6}
    with house.database.write() as session:
        session.add(Upload(id="ds_1", owner="", name="mine", sha256="sha256:1", size_bytes=7, created_ms=8, **values))


@pytest.fixture
def saved(house: House) -> bytes:
    house.train(3)
    house.train(2, ended_days_ago=None)
    add_dataset(house)
    return copy(house).getvalue()


def environment(house: House) -> dict[str, str]:
    folder = str(house.store.root.parent)
    return {
        "TAPELINE_HOME": folder,
        "TAPELINE_DATABASE_URL": house.database.url,
        "TAPELINE_ARTIFACTS": str(house.store.root),
    }


def run(house: House, *arguments: str, given: bytes) -> Result:
    return CliRunner().invoke(main, list(arguments), input=given, env=environment(house))


def tables(house: House) -> list[str]:
    """The tables of the target; asks no SQLite file that is not there, since that would make it."""
    path = house.database.engine.url.database
    if house.database.is_sqlite and not Path(path or "").exists():
        return []
    return inspect(house.database.engine).get_table_names()


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def parts_by_offset(data: bytes) -> list[tuple[int, str]]:
    """Where each part's content ends, its padding included."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(member.offset_data + -(-member.size // 512) * 512, member.name) for member in tar]


def check_refused(house: House, damaged: bytes, *named: str) -> None:
    before = contents(house.store.root.parent.parent)
    for command in (("backup", "--verify", "-"), ("restore", "-")):
        refused = run(house, *command, given=damaged)
        assert refused.exit_code == 1, (command, refused.output)
        assert isinstance(refused.exception, SystemExit), refused.exception
        assert any(name in refused.output for name in named), (named, refused.output)
    assert contents(house.store.root.parent.parent) == before
    assert tables(house) == []


@pytest.mark.sqlite_by_default
def test_any_changed_byte_is_refused_and_leaves_nothing(saved: bytes, empty: House, house: House) -> None:
    chance = random.Random(16)
    ends = parts_by_offset(saved)
    places = [chance.randrange(len(saved)) for _ in range(FLIPS)]
    places += [0, 600, 1100, 1540, len(saved) - 1, len(saved) - 1024, len(saved) - 1025, len(saved) - 2000]
    for place in places:
        damaged = bytearray(saved)
        damaged[place] ^= 1 << chance.randrange(8)
        at = next((number for number, (end, _) in enumerate(ends) if place < end), len(ends))
        named = [ends[number][1] for number in (at - 1, at) if 0 <= number < len(ends)]
        check_refused(empty, bytes(damaged), *named)
    restored = run(empty, "restore", "-", given=saved)
    assert restored.exit_code == 0, restored.output
    assert rows(empty.database) == rows(house.database)
    assert empty.paths() == house.paths()
    assert not (empty.store.root / ".restoring").exists()


@pytest.mark.sqlite_by_default
def test_a_truncated_file_is_refused(saved: bytes, empty: House) -> None:
    chance = random.Random(17)
    lengths = [0, 1, 511, 512, 1536, len(saved) - 1, len(saved) - 512, len(saved) - 1024, len(saved) - 3072]
    for length in lengths + [chance.randrange(len(saved)) for _ in range(10)]:
        check_refused(empty, saved[:length], "truncated", "not a backup")
    check_refused(empty, saved + b"\0", "end.json")


def without_row_column(name: str, data: bytes) -> bytes:
    changed = [json.loads(line) for line in data.splitlines()]
    for row in changed:
        del row["status"]
    return "".join(json.dumps(row) + "\n" for row in changed).encode()


def with_value(key: str, value: Any) -> Callable[[str, bytes], bytes]:
    return lambda name, data: "".join(
        json.dumps(json.loads(line) | {key: value}) + "\n" for line in data.splitlines()
    ).encode()


@pytest.mark.sqlite_by_default
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_row_column, "column 'status' of the table jobs is missing"),
        (with_value("colour", "red"), "jobs has no column 'colour'"),
        (with_value("epoch", "three"), "'epoch' of the table jobs cannot be"),
        (with_value("kind", None), "'kind' of the table jobs cannot be null"),
        (lambda name, data: b"[1, 2]\n", "not a JSON object"),
        (lambda name, data: b"{\n", "not JSON"),
        (lambda name, data: b"[" * 100_000 + b"\n", "not JSON"),
    ],
)
def test_rows_that_do_not_fit_the_schema_are_refused(
    saved: bytes, empty: House, change: Callable[[str, bytes], bytes], reason: str
) -> None:
    crafted = rewritten(saved, lambda name, data: (name, change(name, data) if "rows/jobs/" in name else data))
    check_refused(empty, crafted, f"{reason}")
    with pytest.raises(BackupError, match=r"rows/jobs/000000\.jsonl"):
        verify(io.BytesIO(crafted))


def test_rows_that_the_database_refuses_leave_nothing(saved: bytes, empty: House, house: House) -> None:
    crafted = rewritten(saved, lambda name, data: (name, data * 2 if "rows/jobs/" in name else data))
    with pytest.raises(BackupError, match=r"rows/jobs/000000\.jsonl: the database rejects these rows"):
        restore(empty.database, empty.store, empty.received, io.BytesIO(crafted))
    assert tables(empty) == []
    assert not empty.store.root.exists()
    restore(empty.database, empty.store, empty.received, io.BytesIO(saved))
    assert rows(empty.database) == rows(house.database)


@pytest.mark.sqlite_by_default
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda name, data: (name.replace("files/job_", "files/../b_"), data), "is not a part of a backup"),
        (lambda name, data: None if name.startswith("files/") else (name, data), "missing in the backup"),
        (lambda name, data: None if name.startswith("uploads/") else (name, data), "dataset mine are missing"),
        (lambda name, data: (name, data.replace(b'"format": 2', b'"format": 9')), "another version"),
        (lambda name, data: (name, data.replace(b'"schema": "0', b'"schema": "9')), "newer version"),
        (lambda name, data: None if name == "manifest.json" else (name, data), "not its manifest"),
        (lambda name, data: (name.replace("rows/epochs/", "rows/workers/"), data), "no such table"),
    ],
)
def test_an_incomplete_backup_is_rejected(
    saved: bytes, empty: House, change: Callable[[str, bytes], tuple[str, bytes] | None], reason: str
) -> None:
    check_refused(empty, rewritten(saved, change), reason)


@pytest.mark.sqlite_by_default
def test_exchanged_missing_and_doubled_parts_are_refused(saved: bytes, empty: House) -> None:
    ends = [0, *(end for end, name in parts_by_offset(saved))]
    pieces = [saved[start:end] for start, end in itertools.pairwise(ends)]
    epochs = next(number for number, piece in enumerate(pieces) if b"rows/epochs/" in piece[:1600])
    tail = saved[ends[-1] :]
    check_refused(empty, b"".join(pieces[:epochs] + pieces[epochs + 1 :]) + tail, "end.json")
    check_refused(empty, b"".join(pieces[:epochs] + pieces[epochs : epochs + 1] + pieces[epochs:]) + tail, "end.json")
    events = [*pieces[:epochs], pieces[epochs + 1], pieces[epochs], *pieces[epochs + 2 :]]
    check_refused(empty, b"".join(events) + tail, "end.json")


@pytest.mark.sqlite_by_default
def test_a_backup_of_the_earlier_format_is_refused_as_such(empty: House) -> None:
    older = io.BytesIO()
    with tarfile.open(fileobj=older, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        member, data = tarfile.TarInfo("manifest.json"), b'{"format": 1, "schema": "0008"}'
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    check_refused(empty, older.getvalue(), "earlier version of Tapeline (format 1)")


@pytest.mark.sqlite_by_default
def test_other_programs_can_unpack_a_backup(saved: bytes, tmp_path: Path) -> None:
    (tmp_path / "saved.tar").write_bytes(saved)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-xf", str(tmp_path / "saved.tar"), "-C", str(unpacked)], check=True)
    parts = {name: b"".join(content) for name, content in read_parts(io.BytesIO(saved))}
    assert {name: (unpacked / name).read_bytes() for name in parts} == parts


def begin_restore(house: House) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from service.cli import main; main()", "restore", "-"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=os.environ | environment(house))


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.sqlite_by_default
def test_a_restore_that_was_killed_amid_the_files_can_be_repeated(saved: bytes, empty: House, house: House) -> None:
    ends = parts_by_offset(saved)
    half = next(end for end, name in reversed(ends) if name.startswith("files/")) - 300
    process = begin_restore(empty)
    assert process.stdin is not None
    process.stdin.write(saved[:half])
    process.stdin.flush()
    wait_until(lambda: len(empty.paths()) == len(house.paths()) - 1)
    kill(process)
    assert contents(empty.store.root) >= {".restoring/journal", "datasets/.ds_1/train-images.npy"}
    check_repeated(saved, empty, house)


@pytest.mark.sqlite_by_default
def test_a_restore_that_was_killed_before_its_commit_can_be_repeated(saved: bytes, empty: House, house: House) -> None:
    upgrade(empty.database)
    with exclusively(empty.database):
        process = begin_restore(empty)
        assert process.stdin is not None
        process.stdin.write(saved)
        process.stdin.close()
        wait_until(lambda: empty.paths() == house.paths() and (empty.store.root / "datasets" / "ds_1").exists())
        kill(process)
    check_repeated(saved, empty, house)


def check_repeated(saved: bytes, empty: House, house: House) -> None:
    refused = run(empty, "restore", "-", given=saved[:-1])  # this cleans up, too
    assert refused.exit_code == 1
    assert [path for path in empty.store.root.rglob("*") if path.is_file()] == []
    restored = run(empty, "restore", "-", given=saved)
    assert restored.exit_code == 0, restored.output
    assert rows(empty.database) == rows(house.database)
    assert empty.paths() == house.paths()
    assert set(empty.received.files("ds_1")) == {"train-images.npy", "train-labels.npy"}


def test_files_of_a_killed_restore_stay_where_rows_name_them(saved: bytes, empty: House, house: House) -> None:
    """Killed between the commit and its last step, which is to forget the journal."""
    restore(empty.database, empty.store, empty.received, io.BytesIO(saved))
    work = empty.store.root / ".restoring"
    work.mkdir()
    (work / "journal").write_text("\n".join({path.split("/")[0] for path in house.paths()}) + "\n")
    with pytest.raises(BackupError, match="not empty"):
        restore(empty.database, empty.store, empty.received, io.BytesIO(saved))
    assert empty.paths() == house.paths()


def test_two_restores_into_one_folder_do_not_meet(saved: bytes, empty: House) -> None:
    work = empty.store.root / ".restoring"
    work.mkdir(parents=True)
    handle = os.open(work, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(BackupError, match="another restore"):
        restore(empty.database, empty.store, empty.received, io.BytesIO(saved))
    os.close(handle)
    restore(empty.database, empty.store, empty.received, io.BytesIO(saved))


def test_a_reader_that_stalls_keeps_no_transaction_open(house: House, empty: House) -> None:
    for _ in range(3):
        house.train()
    if not house.database.is_sqlite:

        @event.listens_for(house.database.engine, "connect")
        def limit(connection: Any, record: object) -> None:
            connection.execute("SET idle_in_transaction_session_timeout = 1000")
            connection.commit()

        house.database.engine.dispose()
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    failed: list[BaseException] = []

    def write() -> None:
        try:
            with os.fdopen(writing, "wb") as target:
                backup(house.database, house.store, house.received, target)
        except BaseException as error:  # noqa: BLE001 - told of below
            failed.append(error)

    before = rows(house.database)
    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reading, "rb") as source:
        start = source.read(3000)
        time.sleep(2.5)
        if not house.database.is_sqlite:
            with house.database.read() as session:
                idle = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
                assert session.scalar(text(f"{idle} AND datname = current_database()")) == 0
        house.train(1)  # the backup is of one state all the same
        whole = io.BytesIO(start + source.read())
    thread.join()
    assert failed == []
    restore(empty.database, empty.store, empty.received, whole)
    assert rows(empty.database) == before
    with empty.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 3
        assert session.scalar(select(func.count()).select_from(Epoch)) == 15


def test_a_dataset_that_was_deleted_meanwhile_is_left_out_with_its_row(house: House, empty: House) -> None:
    add_dataset(house)

    class Deleting(io.BytesIO):
        """Deletes the dataset when the first byte is written: the rows have been read by then."""

        def write(self, data: Any) -> int:
            if house.received.files("ds_1"):
                with house.database.write() as session:
                    session.delete(session.get_one(Upload, "ds_1"))
                house.received.discard("ds_1")
            return super().write(data)

    target = Deleting()
    report = backup(house.database, house.store, house.received, target)
    assert (report.files, report.damaged) == (0, [])
    target.seek(0)
    assert restore(empty.database, empty.store, empty.received, target).rows["uploads"] == 0


def test_a_dataset_without_its_files_is_reported(house: House) -> None:
    add_dataset(house)
    for path in house.received.files("ds_1").values():
        path.unlink()
    report = backup(house.database, house.store, house.received, io.BytesIO())
    assert report.damaged == ["the dataset mine has no files"]


@pytest.mark.sqlite_by_default
def test_a_good_backup_is_verified(saved: bytes, empty: House, tmp_path: Path) -> None:
    path = tmp_path / "saved.tar"
    path.write_bytes(saved)
    told = run(empty, "backup", "--verify", str(path), given=b"")
    assert told.exit_code == 0, told.output
    assert "verified: 2 jobs" in told.output
    assert path.read_bytes() == saved
    missing = run(empty, "backup", "--verify", str(tmp_path / "none.tar"), given=b"")
    assert missing.exit_code == 1
    assert not empty.store.root.parent.exists()
