"""Backups into a folder that keeps the newest, and the signing key in a backup."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from migrations.upgrade import upgrade
from service.cli import main
from service.maintenance.backups import rotation
from service.models.certificates import signing, signing_keys
from service.runtime.settings import Settings
from service.storage.artifacts import ArtifactKind
from service.storage.database import Database
from service.storage.stores import ArtifactFolder
from tests.service.maintenance.conftest import Installation


def installed(folder: Path) -> Installation:
    installation = Installation(Database(f"sqlite:///{folder / 'tapeline.db'}"), ArtifactFolder(folder / "artifacts"))
    upgrade(installation.database)
    installation.train(1)
    return installation


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The state folder of a service."""
    installation = installed(tmp_path / "home")
    yield tmp_path / "home"
    installation.database.close()


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), env={"TAPELINE_HOME": str(folder)})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def make_aged(home: Path, backups: Path, *days: int) -> list[str]:
    """Backups of the first days of January, made by the command."""
    found = []
    for day in days:
        made = run(home, "backup", "--keep", "99", str(backups))
        assert made.exit_code == 0, made.output
        (new,) = [name for name in names(backups) if name.startswith("tapeline-2026") or name not in found]
        found.append(f"tapeline-202001{day:02d}T000000Z.tar")
        (backups / new).rename(backups / found[-1])
    return found


def test_only_the_oldest_backups_of_this_service_are_removed_after_the_new_one(home: Path, tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    aged = make_aged(home, backups, 1, 2, 3)
    other = installed(tmp_path / "other")
    others = make_aged(tmp_path / "other", tmp_path / "theirs", 1)
    other.database.close()
    shutil.copy(tmp_path / "theirs" / others[0], backups / "tapeline-20190101T000000Z.tar")
    (backups / "tapeline-20180101T000000Z.tar").write_bytes(b"somebody's own archive")
    shutil.copy(backups / aged[0], backups / "before-the-upgrade.tar")
    (backups / "tapeline-20170101T000000Z.tar").symlink_to(backups / "before-the-upgrade.tar")
    whole = (backups / aged[0]).read_bytes()
    (backups / ".tapeline-20200105T000000Z.tar.01234567.part").write_bytes(whole[: len(whole) // 2])  # was killed
    made = run(home, "backup", "--keep", "2", str(backups))
    assert made.exit_code == 0, made.output
    left = names(backups)
    new = left.pop()
    assert left == [
        "before-the-upgrade.tar",
        "tapeline-20170101T000000Z.tar",
        "tapeline-20180101T000000Z.tar",
        "tapeline-20190101T000000Z.tar",
        aged[-1],
    ]
    assert stat.S_IMODE((backups / new).stat().st_mode) == 0o600
    assert run(home, "backup", "--verify", str(backups / new)).exit_code == 0


def test_a_backup_that_lacks_a_file_or_fails_removes_no_older_one(home: Path, tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    aged = make_aged(home, backups, 1, 2)
    (checkpoint, *_) = (home / "artifacts").rglob(f"{ArtifactKind.CHECKPOINT}/*")
    checkpoint.write_bytes(b"damaged")
    made = run(home, "backup", "--keep", "1", str(backups))
    assert made.exit_code == 1
    assert "all older backups were kept" in made.output
    assert names(backups)[:2] == aged
    before = names(backups)
    with closing(sqlite3.connect(home / "tapeline.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    assert "another version" in run(home, "backup", "--keep", "1", str(backups)).output
    assert names(backups) == before


def test_one_backup_at_a_time_and_a_clock_that_was_set_back(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backups = tmp_path / "backups"
    with rotation.locked(backups):
        refused = run(home, "backup", "--keep", "1", str(backups))
    assert refused.exit_code == 1
    assert "another backup into" in refused.output
    run(home, "backup", "--keep", "1", str(backups))
    (future,) = names(backups)
    (backups / future).rename(backups / "tapeline-20990101T000000Z.tar")
    assert run(home, "backup", "--keep", "1", str(backups)).exit_code == 0
    (kept,) = names(backups)
    assert kept.startswith("tapeline-202"), "the new one is kept, although another has a later name"


@pytest.mark.nightly
def test_the_compose_service_makes_a_backup_a_day(home: Path, tmp_path: Path) -> None:
    text = (Path(__file__).parents[4] / "docker-compose.yml").read_text(encoding="utf-8")
    shell, option, script = yaml.safe_load(text)["services"]["backup"]["command"]
    once = script.replace("$$", "$").replace("sleep 3600 & wait $!", "exit")
    assert once.count("exit") == 1
    bin_folder = Path(sys.executable).parent
    environ = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "TAPELINE_HOME": str(home), "BACKUP_KEEP": "2"}
    backups = tmp_path / "backups"
    backups.mkdir()
    counts = []
    for hours in (0, 1, 24, 24):
        for path in backups.glob("*.tar"):
            aged = path.stat().st_mtime - hours * 3600
            os.utime(path, (aged, aged))
        ran = subprocess.run(
            [shell, option, once], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
        counts.append(ran.stderr.count("wrote backups/tapeline-"))
    assert counts == [1, 0, 1, 1]
    assert len(names(backups)) == 2


@pytest.mark.parametrize("arguments", [("-",), ("--verify", "folder"), ("file",)])
def test_a_rotation_needs_a_folder(home: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "file").touch()
    places = [str(tmp_path / item) if item in ("file", "folder") else item for item in arguments]
    assert run(home, "backup", "--keep", "3", *places).exit_code == 2


def test_the_signing_key_is_in_a_backup_on_request_only_and_is_put_back(home: Path, tmp_path: Path) -> None:
    early = run(home, "backup", "--with-signing-key", str(tmp_path / "early.tar"))
    assert early.exit_code == 0
    assert "there is no signing key yet" in early.output
    settings = Settings.from_env({"TAPELINE_HOME": str(home)}, cores=1)
    signer, key = signing.open_signer(settings), settings.signing_key_file
    without = run(home, "backup", str(tmp_path / "without.tar"))
    assert without.exit_code == 0
    private = key.read_bytes()
    assert private.splitlines()[1] not in (tmp_path / "without.tar").read_bytes()
    saved = str(tmp_path / "saved.tar")
    made = run(home, "backup", "--with-signing-key", saved)
    assert f"with the signing key {signer.kid}" in made.output
    assert f"with the signing key {signer.kid}" in run(home, "backup", "--verify", saved).output
    previous = os.umask(0o022)
    try:
        restored = run(tmp_path / "new", "restore", saved)
    finally:
        os.umask(previous)
    assert restored.exit_code == 0, restored.output
    place = tmp_path / "new" / "keys" / "signing-key.pem"
    assert place.read_bytes() == private
    assert (stat.S_IMODE(place.stat().st_mode), stat.S_IMODE(place.parent.stat().st_mode)) == (0o600, 0o700)
    assert names(place.parent) == ["signing-key.pem"]
    (tmp_path / "third" / "keys").mkdir(parents=True)
    shutil.copy(key, tmp_path / "third" / "keys" / "signing-key.pem")
    assert run(tmp_path / "third", "restore", saved).exit_code == 0, "the same key is there"


def test_another_signing_key_is_never_overwritten_and_a_failed_restore_leaves_none(home: Path, tmp_path: Path) -> None:
    signing.open_signer(Settings.from_env({"TAPELINE_HOME": str(home)}, cores=1))
    saved = tmp_path / "saved.tar"
    run(home, "backup", "--with-signing-key", str(saved))
    new = Settings.from_env({"TAPELINE_HOME": str(tmp_path / "new")}, cores=1)
    signing.open_signer(new)
    theirs = new.signing_key_file.read_bytes()
    refused = run(tmp_path / "new", "restore", str(saved))
    assert refused.exit_code == 1
    assert "another signing key" in refused.output
    assert new.signing_key_file.read_bytes() == theirs
    assert not (tmp_path / "new" / "tapeline.db").exists() or (tmp_path / "new" / "tapeline.db").stat().st_size == 0
    saved.write_bytes(saved.read_bytes()[:-2000])
    assert run(tmp_path / "third", "restore", str(saved)).exit_code == 1
    assert not [*(tmp_path / "third").rglob("*.pem")]


def test_a_published_key_that_is_not_here_is_not_left_out_silently(home: Path, tmp_path: Path) -> None:
    settings = Settings.from_env({"TAPELINE_HOME": str(home)}, cores=1)
    database = Database(settings.database_url)
    signing_keys.register(database, signing.open_signer(settings))
    database.close()
    settings.signing_key_file.unlink()
    refused = run(home, "backup", "--with-signing-key", str(tmp_path / "saved.tar"))
    assert refused.exit_code == 1
    assert "run the command where the web process runs" in refused.output
    assert not (tmp_path / "saved.tar").exists()
