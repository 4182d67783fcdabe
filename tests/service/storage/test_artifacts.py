"""What is special about the store in a folder; test_store_conformance.py has what holds for every store."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from service.storage.artifacts import ArtifactDamaged, ArtifactKind
from service.storage.stores import ArtifactFolder


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ArtifactDamaged):
        ArtifactFolder(tmp_path).open("link")


def test_a_failed_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    folder = ArtifactFolder(tmp_path)
    blocked = tmp_path / "job_1" / "checkpoint"
    blocked.parent.mkdir()
    blocked.write_text("a file where a folder should be")
    with pytest.raises(OSError, match="exists"):
        folder.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, b"x")
    assert list(tmp_path.rglob("*.tmp")) == []


def test_files_of_an_epoch_are_synced_before_any_rename_and_each_folder_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, operations = ArtifactFolder(tmp_path), list[str]()
    folder.write_all("job_1", 1, 1, {ArtifactKind.CHECKPOINT: b"weights", ArtifactKind.SAMPLE: b"picture"})
    fsync, rename = os.fsync, Path.rename

    def record_sync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        operations.append(f"sync {path.name if path.is_dir() else f'a file in {path.parent.name}'}")
        fsync(descriptor)

    def record_rename(path: Path, target: Path) -> Path:
        operations.append(f"name {target.parent.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "rename", record_rename)
    files = folder.write_all("job_1", 2, 1, {ArtifactKind.CHECKPOINT: b"heavier", ArtifactKind.SAMPLE: b"clearer"})
    assert operations == [
        *("sync a file in checkpoint", "sync a file in sample"),
        *("name checkpoint", "name sample"),
        *("sync checkpoint", "sync sample"),
    ]
    assert [folder.read(file.path, file.sha256) for file in files] == [b"heavier", b"clearer"]


def test_if_one_of_several_files_cannot_be_synced_none_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, synced = ArtifactFolder(tmp_path), list[int]()
    folder.write_all("job_1", 1, 1, {ArtifactKind.CHECKPOINT: b"weights", ArtifactKind.SAMPLE: b"picture"})
    before = {item.path for item in folder.stored()}

    def fail(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="error"):
        folder.write_all("job_1", 2, 1, {ArtifactKind.CHECKPOINT: b"heavier", ArtifactKind.SAMPLE: b"clearer"})
    assert {item.path for item in folder.stored()} == before
