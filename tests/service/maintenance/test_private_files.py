"""What the operator's commands write is readable by nobody else, whatever the umask: the database, and secrets."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen, run

import pytest

from migrations.upgrade import upgrade
from service.storage.database import Database
from service.storage.stores import ArtifactFolder
from tests.service.maintenance.conftest import Installation
from tests.waiting import wait_until

_COMMAND = "import os, sys; os.umask(0o022); from service.cli import main; main(sys.argv[1:], prog_name='tapeline')"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Installation]:
    """The state folder of a service, with a job and a dataset."""
    installation = Installation(
        Database(f"sqlite:///{tmp_path / 'home' / 'tapeline.db'}"), ArtifactFolder(tmp_path / "home" / "artifacts")
    )
    upgrade(installation.database)
    installation.train(2)
    installation.add_dataset()
    yield installation
    installation.database.close()


def environ(folder: Path) -> dict[str, str]:
    return {**os.environ, "TAPELINE_HOME": str(folder)}


def arguments(*options: str) -> list[str]:
    return [sys.executable, "-c", _COMMAND, *options]


def modes(folder: Path) -> dict[str, str]:
    """The paths below a folder that others may read or enter, with their modes."""
    found = [folder, *folder.rglob("*")]
    return {
        str(path.relative_to(folder)): oct(mode)
        for path in found
        if (mode := stat.S_IMODE(path.lstat().st_mode)) != (0o700 if path.is_dir() else 0o600)
    }


@pytest.mark.nightly  # the next tests look while the files are written
def test_backup_and_restored_home_are_private_under_any_umask(home: Installation, tmp_path: Path) -> None:
    backups, saved = tmp_path / "backups", tmp_path / "backups" / "saved.tar"
    backups.mkdir(mode=0o700)
    run(arguments("backup", str(saved)), env=environ(tmp_path / "home"), check=True)
    assert modes(backups) == {}
    run(arguments("restore", str(saved)), env=environ(tmp_path / "new"), check=True)
    assert len([*(tmp_path / "new").rglob("*")]) > 10
    assert modes(tmp_path / "new") == {}


@pytest.mark.stack
def test_a_backup_is_private_while_it_is_written_and_over_a_file_that_all_may_read(
    home: Installation, tmp_path: Path
) -> None:
    backups, saved = tmp_path / "backups", tmp_path / "backups" / "saved.tar"
    backups.mkdir(mode=0o700)
    saved.write_bytes(b"an older one")
    saved.chmod(0o644)
    with home.database.write(), Popen(arguments("backup", str(saved)), env=environ(tmp_path / "home")) as command:
        seen: set[str] = set()
        while command.poll() is None:
            for entry in os.scandir(backups):
                if entry.name != saved.name:
                    seen.add(oct(stat.S_IMODE(entry.stat().st_mode)))
            time.sleep(0.001)  # a file is looked for that exists for some milliseconds
    assert seen <= {"0o600"}
    assert command.returncode == 0
    assert modes(backups) == {}


@pytest.mark.stack
def test_a_restore_has_no_window_in_which_others_may_read(home: Installation, tmp_path: Path) -> None:
    saved = tmp_path / "saved.tar"
    run(arguments("backup", str(saved)), env=environ(tmp_path / "home"), check=True)
    data = saved.read_bytes()
    with Popen(arguments("restore", "-"), env=environ(tmp_path / "new"), stdin=PIPE) as command:
        assert command.stdin is not None
        command.stdin.write(data[: len(data) // 2])  # it waits for the rest in the middle
        command.stdin.flush()
        wait_until(lambda: [*(tmp_path / "new").rglob("*.npy")] or command.poll() is not None, "the first files")
        assert modes(tmp_path / "new") == {}
        command.stdin.write(data[len(data) // 2 :])
        command.stdin.close()
    assert command.returncode == 0


@pytest.mark.stack
def test_a_backup_redirected_into_a_file_is_private(home: Installation, tmp_path: Path) -> None:
    with (tmp_path / "piped.tar").open("wb") as file:
        os.fchmod(file.fileno(), 0o644)
        run(arguments("backup", "-"), env=environ(tmp_path / "home"), stdout=file, check=True)
    assert stat.S_IMODE((tmp_path / "piped.tar").stat().st_mode) == 0o600


def test_a_database_is_created_for_its_owner_alone_with_its_sidecar_files(tmp_path: Path) -> None:
    previous = os.umask(0o022)
    try:
        database = Database(f"sqlite:///{tmp_path / 'home' / 'tapeline.db'}")
        upgrade(database)
        with database.read():
            names = sorted(path.name for path in (tmp_path / "home").iterdir())
            assert names == ["tapeline.db", "tapeline.db-shm", "tapeline.db-wal"]
            assert modes(tmp_path / "home") == {}
        database.close()
    finally:
        os.umask(previous)
