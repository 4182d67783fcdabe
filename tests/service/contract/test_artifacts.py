from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.contract.artifacts import ArtifactDamaged, ArtifactFolder, ArtifactKind


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path)
    stored = folder.write("job_1", ArtifactKind.CHECKPOINT, 7, 2, b"weights")
    assert folder.read(stored.path, stored.sha256) == b"weights"
    assert stored.size_bytes == 7
    assert stored.name == "checkpoint-0007.safetensors"
    with folder.open(stored.path) as file:
        assert file.read() == b"weights"


def test_another_lease_writes_another_file(tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path)
    first = folder.write("job_1", ArtifactKind.SAMPLE, 1, 1, b"same")
    second = folder.write("job_1", ArtifactKind.SAMPLE, 1, 2, b"same")
    assert first.path != second.path
    assert first.sha256 == second.sha256


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(b"weightz"), lambda path: os.truncate(path, 3), Path.unlink]
)
def test_damage_is_found_out(tmp_path: Path, damage: object) -> None:
    folder = ArtifactFolder(tmp_path)
    stored = folder.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, b"weights")
    damage(tmp_path / stored.path)  # type: ignore[operator]  # one of three callables
    with pytest.raises(ArtifactDamaged):
        folder.read(stored.path, stored.sha256)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ArtifactDamaged):
        ArtifactFolder(tmp_path).open("link")


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path)
    blocked = tmp_path / "job_1" / "checkpoint"
    blocked.parent.mkdir()
    blocked.write_text("a file where a folder should be")
    with pytest.raises(OSError, match="exists"):
        folder.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, b"x")
    assert list(tmp_path.rglob("*.tmp")) == []


def test_old_files_that_no_row_names_are_swept_away(tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path)
    kept = folder.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, b"kept").path
    lost = folder.write("job_1", ArtifactKind.CHECKPOINT, 2, 1, b"lost").path
    unfinished = tmp_path / "job_1" / "checkpoint" / ".x.tmp"
    unfinished.touch()
    for path in (tmp_path / kept, tmp_path / lost, unfinished):
        os.utime(path, (0, 0))
    fresh = folder.write("job_1", ArtifactKind.SAMPLE, 2, 1, b"about to be named").path
    assert len(folder.sweep(lambda job_id: {kept}, older_than_s=60)) == 2
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {kept, fresh}


def test_a_deleted_job_leaves_no_folder(tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path)
    folder.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, b"x")
    folder.remove_job("job_1")
    assert list(tmp_path.iterdir()) == []
