"""Backups that are damaged, truncated or crafted, restores that are killed, and readers that stall."""

from __future__ import annotations

import fcntl
import io
import itertools
import json
import os
import random
import select as select_module
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import func, inspect, select, text

from migrations.upgrade import exclusively, upgrade
from service.cli import main
from service.maintenance.backups.backup import BackupError, backup, restore, verify
from service.maintenance.backups.backup_format import read_parts
from service.storage.tables import Epoch, Job, Upload
from tests.service.maintenance.backups.test_backup import empty, make_backup, rewritten, rows
from tests.service.maintenance.conftest import Installation, read_dataset
from tests.waiting import wait_until

__all__ = ["empty"]

RANDOM_FLIPS = 40


@pytest.fixture
def archive(installation: Installation) -> bytes:
    installation.train(3)
    installation.train(2, ended_days_ago=None)
    installation.add_dataset()
    return make_backup(installation).getvalue()


def environment(installation: Installation) -> dict[str, str]:
    folder = str(installation.store.root.parent)
    return {
        "TAPELINE_HOME": folder,
        "TAPELINE_DATABASE_URL": installation.database.url,
        "TAPELINE_ARTIFACTS": str(installation.store.root),
    }


def run(installation: Installation, *arguments: str, stdin: bytes) -> Result:
    return CliRunner().invoke(main, list(arguments), input=stdin, env=environment(installation))


def tables(installation: Installation) -> list[str]:
    """The tables of the target; does not open a missing SQLite file, since that would create it."""
    path = installation.database.engine.url.database
    if installation.database.is_sqlite and not Path(path or "").exists():
        return []
    return inspect(installation.database.engine).get_table_names()


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def parts_by_offset(data: bytes) -> list[tuple[int, str]]:
    """The offset at which each part's content and padding end, and the part's name."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(member.offset_data + -(-member.size // 512) * 512, member.name) for member in tar]


def assert_refused(installation: Installation, damaged: bytes, *expected_names: str) -> None:
    paths = contents(installation.store.root.parent.parent)
    for command in (("backup", "--verify", "-"), ("restore", "-")):
        refused = run(installation, *command, stdin=damaged)
        assert refused.exit_code == 1, (command, refused.output)
        assert isinstance(refused.exception, SystemExit), refused.exception
        assert any(name in refused.output for name in expected_names), (expected_names, refused.output)
    assert contents(installation.store.root.parent.parent) == paths
    assert tables(installation) == []


def test_a_flipped_bit_anywhere_is_refused_and_leaves_nothing(
    archive: bytes, empty: Installation, installation: Installation
) -> None:
    rng = random.Random(16)
    ends = parts_by_offset(archive)
    offsets = [rng.randrange(len(archive)) for _ in range(RANDOM_FLIPS)]
    offsets += [0, 600, 1100, 1540, len(archive) - 1, len(archive) - 1024, len(archive) - 1025, len(archive) - 2000]
    for offset in offsets:
        damaged = bytearray(archive)
        damaged[offset] ^= 1 << rng.randrange(8)
        part = next((number for number, (end, _) in enumerate(ends) if offset < end), len(ends))
        part_names = [ends[number][1] for number in (part - 1, part) if 0 <= number < len(ends)]
        assert_refused(empty, bytes(damaged), *part_names)
    restored = run(empty, "restore", "-", stdin=archive)
    assert restored.exit_code == 0, restored.output
    assert rows(empty.database) == rows(installation.database)
    assert empty.paths() == installation.paths()
    assert not (empty.store.root / ".restoring").exists()


def test_a_truncated_or_extended_file_is_refused(archive: bytes, empty: Installation) -> None:
    rng = random.Random(17)
    lengths = [0, 1, 511, 512, 1536, len(archive) - 1, len(archive) - 512, len(archive) - 1024, len(archive) - 3072]
    for length in lengths + [rng.randrange(len(archive)) for _ in range(10)]:
        assert_refused(empty, archive[:length], "truncated", "not a backup")
    assert_refused(empty, archive + b"\0", "end.json")


def without_status(name: str, data: bytes) -> bytes:
    records = [json.loads(line) for line in data.splitlines()]
    for record in records:
        del record["status"]
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def with_value(key: str, value: Any) -> Callable[[str, bytes], bytes]:
    return lambda name, data: "".join(
        json.dumps(json.loads(line) | {key: value}) + "\n" for line in data.splitlines()
    ).encode()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_status, "column 'status' of the table jobs is missing"),
        (with_value("colour", "red"), "jobs has no column 'colour'"),
        (with_value("epoch", "three"), "'epoch' of the table jobs cannot be"),
        (with_value("kind", None), "'kind' of the table jobs cannot be null"),
        (lambda name, data: b"[1, 2]\n", "not a JSON object"),
        (lambda name, data: b"{\n", "not JSON"),
        (lambda name, data: b"[" * 100_000 + b"\n", "not JSON"),
    ],
)
def test_rows_that_do_not_fit_the_schema_are_refused(
    archive: bytes, empty: Installation, change: Callable[[str, bytes], bytes], reason: str
) -> None:
    crafted = rewritten(archive, lambda name, data: (name, change(name, data) if "rows/jobs/" in name else data))
    assert_refused(empty, crafted, f"{reason}")
    with pytest.raises(BackupError, match=r"rows/jobs/000000\.jsonl"):
        verify(io.BytesIO(crafted))


def test_rows_that_the_database_rejects_leave_nothing(
    archive: bytes, empty: Installation, installation: Installation
) -> None:
    crafted = rewritten(archive, lambda name, data: (name, data * 2 if "rows/jobs/" in name else data))
    with pytest.raises(BackupError, match=r"rows/jobs/000000\.jsonl: the database rejects these rows"):
        restore(empty.database, empty.files, io.BytesIO(crafted))
    assert tables(empty) == []
    assert not empty.store.root.exists()
    restore(empty.database, empty.files, io.BytesIO(archive))
    assert rows(empty.database) == rows(installation.database)


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
def test_an_incomplete_or_incompatible_backup_is_refused(
    archive: bytes, empty: Installation, change: Callable[[str, bytes], tuple[str, bytes] | None], reason: str
) -> None:
    assert_refused(empty, rewritten(archive, change), reason)


def test_swapped_missing_and_duplicate_parts_are_refused(archive: bytes, empty: Installation) -> None:
    ends = [0, *(end for end, name in parts_by_offset(archive))]
    pieces = [archive[start:end] for start, end in itertools.pairwise(ends)]
    first = next(number for number, piece in enumerate(pieces) if b"rows/epochs/" in piece[:1600])
    tail = archive[ends[-1] :]
    assert_refused(empty, b"".join(pieces[:first] + pieces[first + 1 :]) + tail, "end.json")
    assert_refused(empty, b"".join(pieces[:first] + pieces[first : first + 1] + pieces[first:]) + tail, "end.json")
    swapped = [*pieces[:first], pieces[first + 1], pieces[first], *pieces[first + 2 :]]
    assert_refused(empty, b"".join(swapped) + tail, "end.json")


def test_a_backup_in_an_earlier_format_is_refused_as_such(empty: Installation) -> None:
    older = io.BytesIO()
    with tarfile.open(fileobj=older, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        member, data = tarfile.TarInfo("manifest.json"), b'{"format": 1, "schema": "0008"}'
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    assert_refused(empty, older.getvalue(), "earlier version of Tapeline (format 1)")


@pytest.mark.stack
def test_tar_can_unpack_a_backup(archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "saved.tar").write_bytes(archive)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-xf", str(tmp_path / "saved.tar"), "-C", str(unpacked)], check=True)
    parts = {name: b"".join(content) for name, content in read_parts(io.BytesIO(archive))}
    assert {name: (unpacked / name).read_bytes() for name in parts} == parts


def start_restore(installation: Installation) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from service.cli import main; main()", "restore", "-"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=os.environ | environment(installation))


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()


@pytest.mark.stack
def test_a_restore_killed_while_it_writes_files_can_be_repeated(
    archive: bytes, empty: Installation, installation: Installation
) -> None:
    ends = parts_by_offset(archive)
    cut = next(end for end, name in reversed(ends) if name.startswith("files/")) - 300
    process = start_restore(empty)
    assert process.stdin is not None
    process.stdin.write(archive[:cut])
    process.stdin.flush()
    wait_until(lambda: len(empty.paths()) == len(installation.paths()) - 1, "all files but the last", 120)
    kill(process)
    assert contents(empty.store.root) >= {".restoring/journal", ".restoring/ds_1/meta.json"}
    assert_repeatable(archive, empty, installation)


@pytest.mark.stack
def test_a_restore_killed_before_its_commit_can_be_repeated(
    archive: bytes, empty: Installation, installation: Installation
) -> None:
    upgrade(empty.database)
    with exclusively(empty.database):
        process = start_restore(empty)
        assert process.stdin is not None
        process.stdin.write(archive)
        process.stdin.close()
        has_dataset = (empty.store.root / "datasets" / "ds_1").exists
        wait_until(lambda: empty.paths() == installation.paths() and has_dataset(), "all files of the backup")
        kill(process)
    assert_repeatable(archive, empty, installation)


def assert_repeatable(archive: bytes, empty: Installation, installation: Installation) -> None:
    refused = run(empty, "restore", "-", stdin=archive[:-1])  # a refused restore cleans up, too
    assert refused.exit_code == 1
    assert [path for path in empty.store.root.rglob("*") if path.is_file()] == []
    restored = run(empty, "restore", "-", stdin=archive)
    assert restored.exit_code == 0, restored.output
    assert rows(empty.database) == rows(installation.database)
    assert empty.paths() == installation.paths()
    assert read_dataset(empty.files) == read_dataset(installation.files)


def test_files_of_a_restore_killed_after_its_commit_are_kept(
    archive: bytes, empty: Installation, installation: Installation
) -> None:
    """Killed between the commit and the last step, which deletes the journal."""
    restore(empty.database, empty.files, io.BytesIO(archive))
    work = empty.store.root / ".restoring"
    work.mkdir()
    (work / "journal").write_text("\n".join({path.split("/")[0] for path in installation.paths()}) + "\n")
    with pytest.raises(BackupError, match="not empty"):
        restore(empty.database, empty.files, io.BytesIO(archive))
    assert empty.paths() == installation.paths()


def test_a_concurrent_restore_into_the_same_folder_is_refused(archive: bytes, empty: Installation) -> None:
    work = empty.store.root / ".restoring"
    work.mkdir(parents=True)
    handle = os.open(work, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(BackupError, match="another restore"):
        restore(empty.database, empty.files, io.BytesIO(archive))
    os.close(handle)
    restore(empty.database, empty.files, io.BytesIO(archive))


def is_in_transaction(installation: Installation) -> bool:
    """Whether a connection to PostgreSQL has a transaction in which it does nothing."""
    idle = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
    with installation.database.read() as session:
        return bool(session.scalar(text(f"{idle} AND datname = current_database()")))


@pytest.mark.nightly
def test_a_stalled_reader_keeps_no_transaction_open(installation: Installation, empty: Installation) -> None:
    for _ in range(3):
        installation.train()
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    errors: list[BaseException] = []

    def write() -> None:
        try:
            with os.fdopen(writing, "wb") as target:
                backup(installation.database, installation.files, target)
        except BaseException as error:  # noqa: BLE001 - asserted below
            errors.append(error)

    expected = rows(installation.database)
    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reading, "rb") as source:
        head = source.read(3000)
        wait_until(lambda: not select_module.select([], [writing], [], 0)[1], "a full pipe")
        if not installation.database.is_sqlite:
            wait_until(lambda: not is_in_transaction(installation), "the end of its last transaction")
        installation.train(1)  # the backup is still of a single state
        whole = io.BytesIO(head + source.read())
    thread.join()
    assert errors == []
    restore(empty.database, empty.files, whole)
    assert rows(empty.database) == expected
    with empty.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 3
        assert session.scalar(select(func.count()).select_from(Epoch)) == 15


def test_a_dataset_deleted_during_the_backup_is_left_out_with_its_row(
    installation: Installation, empty: Installation
) -> None:
    installation.add_dataset()

    class Deleting(io.BytesIO):
        """Deletes the dataset when the first byte is written, after the rows have been read."""

        def write(self, data: Any) -> int:
            if not installation.files.is_empty():
                with installation.database.write() as session:
                    session.delete(session.get_one(Upload, "ds_1"))
                installation.files.discard("ds_1")
            return super().write(data)

    target = Deleting()
    report = backup(installation.database, installation.files, target)
    assert (report.files, report.damaged) == (0, [])
    target.seek(0)
    assert restore(empty.database, empty.files, target).rows["uploads"] == 0


def test_a_dataset_without_its_files_is_reported(installation: Installation) -> None:
    installation.add_dataset()
    installation.files.discard("ds_1")
    report = backup(installation.database, installation.files, io.BytesIO())
    (damaged,) = report.damaged
    assert damaged.startswith("the dataset mine: datasets/ds_1/meta.json: No such file")


def test_verifying_an_intact_backup_succeeds_and_changes_nothing(
    archive: bytes, empty: Installation, tmp_path: Path
) -> None:
    path = tmp_path / "saved.tar"
    path.write_bytes(archive)
    result = run(empty, "backup", "--verify", str(path), stdin=b"")
    assert result.exit_code == 0, result.output
    assert "verified: 2 jobs" in result.output
    assert path.read_bytes() == archive
    missing = run(empty, "backup", "--verify", str(tmp_path / "none.tar"), stdin=b"")
    assert missing.exit_code == 1
    assert not empty.store.root.parent.exists()
