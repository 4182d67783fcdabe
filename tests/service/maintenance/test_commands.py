"""The operator's commands."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from migrations.upgrade import upgrade
from service.access import audit_seals
from service.cli import main
from service.storage.artifacts import ArtifactKind
from service.storage.database import Database, now_ms
from service.storage.stores import ArtifactFolder
from service.storage.tables import AuditEntry
from tests.service.maintenance.conftest import DAY_MS, Installation


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Installation]:
    """The state folder of an embedded service."""
    installation = Installation(
        Database(f"sqlite:///{tmp_path / 'home' / 'tapeline.db'}"), ArtifactFolder(tmp_path / "home" / "artifacts")
    )
    upgrade(installation.database)
    yield installation
    installation.database.close()


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), env={"TAPELINE_HOME": str(folder)})


def test_gc_lists_expired_data_and_deletes_only_on_request(home: Installation, tmp_path: Path) -> None:
    job_id = home.train(ended_days_ago=8)
    result = run(tmp_path / "home", "gc", "--keep-checkpoints", "7")
    assert result.exit_code == 0, result.output
    assert "3 checkpoints" in result.output
    assert "nothing was deleted" in result.output
    assert home.checkpoint_epochs(job_id) == [1, 2, 3, 4, 5]
    document = json.loads(run(tmp_path / "home", "gc", "--dry-run", "--keep-jobs", "7", "--json").output)
    assert (document["deleted"], [item["name"] for item in document["jobs"]]) == (False, [job_id])
    deleted = run(tmp_path / "home", "gc", "--keep-checkpoints", "7", "--delete")
    assert "deleted: 4.8 kB freed" in deleted.output
    assert home.checkpoint_epochs(job_id) == [2, 5]


def test_gc_removes_expired_audit_entries(home: Installation, tmp_path: Path) -> None:
    for days in (40, 0):
        with home.database.write() as session:
            session.add(AuditEntry(at_ms=now_ms() - days * DAY_MS, action="submit", detail={}))
        audit_seals.seal(home.database, grace_s=0)
    environ = {"TAPELINE_HOME": str(tmp_path / "home"), "TAPELINE_KEEP_AUDIT_DAYS": "30"}
    for option in ("--dry-run", "--delete"):
        result = CliRunner().invoke(main, ["gc", option], env=environ)
        assert "     1 audit entries\n" in result.output
    assert "audit" not in CliRunner().invoke(main, ["gc"], env=environ).output


def test_a_backup_of_one_home_is_restored_into_another(home: Installation, tmp_path: Path) -> None:
    job_id = home.train()
    saved = run(tmp_path / "home", "backup", str(tmp_path / "saved.tar"))
    assert saved.exit_code == 0, saved.output
    assert "1 job," in saved.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "saved.tar"]
    restored = run(tmp_path / "new", "restore", str(tmp_path / "saved.tar"))
    assert restored.exit_code == 0, restored.output
    database = Database(f"sqlite:///{tmp_path / 'new' / 'tapeline.db'}")
    assert Installation(database, ArtifactFolder(tmp_path / "new" / "artifacts")).checkpoint_epochs(job_id) == [
        1,
        2,
        3,
        4,
        5,
    ]
    database.close()
    again = run(tmp_path / "new", "restore", str(tmp_path / "saved.tar"))
    assert again.exit_code == 1
    assert "the database is not empty" in again.output


def test_backup_verify_and_restore_report_what_they_did_as_json(home: Installation, tmp_path: Path) -> None:
    home.train()
    saved = str(tmp_path / "saved.tar")
    for folder, *command in (
        ("home", "backup", saved),
        ("home", "backup", "--verify", saved),
        ("new", "restore", saved),
    ):
        result = run(tmp_path / folder, *command, "--json")
        assert result.exit_code == 0, result.output
        report = json.loads(result.stderr)
        assert (report["rows"]["jobs"], report["rows"]["epochs"], report["files"]) == (1, 5, 10)
        assert report["damaged"] == []


def test_without_a_service_the_commands_are_refused_and_create_nothing(tmp_path: Path) -> None:
    for command in (("gc",), ("backup", str(tmp_path / "saved.tar"))):
        refused = run(tmp_path / "nowhere", *command)
        assert refused.exit_code == 1
        assert "TAPELINE_HOME" in refused.output
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_reports_disk_usage_and_the_command_that_frees_space(home: Installation, tmp_path: Path) -> None:
    small, large = home.train(2, ended_days_ago=8), home.train(9, ended_days_ago=8)
    home.store.cache_image(large, "samples", "000009.webp", b"a film" * 100)
    orphan = home.store.write("job_gone", ArtifactKind.CHECKPOINT, 1, 1, bytes(5000)).path
    os.utime(home.store.root / orphan, (time.time() - 86400,) * 2)
    output = run(tmp_path / "home", "doctor").output
    document = json.loads(run(tmp_path / "home", "doctor", "--json").output)
    space = document["space"]
    stored = {item.path: item.size_bytes for item in home.store.stored()}
    size_by_kind = {kind: sum(size for path, size in stored.items() if f"/{kind}/" in path) for kind in ArtifactKind}
    assert space["kinds"]["checkpoints"] == size_by_kind["checkpoint"] - 5000
    assert space["kinds"]["samples"] == size_by_kind["sample"]
    assert space["kinds"]["cached images"] == sum(size for path, size in stored.items() if "/derived/" in path) > 600
    assert space["kinds"]["orphaned files"] == space["reclaimable_bytes"] == 5000
    assert space["kinds"]["database"] > 50_000
    assert [item["id"] for item in space["largest_jobs"]] == [large, small]
    assert "  orphaned files       5.0 kB" in output
    assert output.index(large) < output.index(small)
    assert "`tapeline gc --delete` frees 5.0 kB" in output
    assert "tapeline gc --keep-checkpoints 7 --delete" in output
    assert "GB free at" in output
    total_bytes = sum(stored.values())
    result = run(tmp_path / "home", "gc", "--keep-checkpoints", "7", "--delete", "--json")
    expected = space["reclaimable_bytes"] + space["old_checkpoints_bytes"]
    assert json.loads(result.output)["size_bytes"] == expected
    assert sum(item.size_bytes for item in home.store.stored()) == total_bytes - expected
    assert "tapeline gc" not in run(tmp_path / "home", "doctor").output


def test_gc_lists_orphaned_files(home: Installation, tmp_path: Path) -> None:
    orphan = home.store.write("job_gone", ArtifactKind.SAMPLE, 1, 1, b"of a deleted job").path
    os.utime(home.store.root / orphan, (time.time() - 86400,) * 2)
    output = run(tmp_path / "home", "gc").output
    assert "     1 orphaned files (16 B)" in output
    assert "nothing was deleted; --delete would free 16 B" in output
