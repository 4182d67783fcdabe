from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from service.storage.artifacts import ArtifactDamaged, ArtifactFolder, ArtifactKind, ArtifactStore
from tests.service.storage.memory_store import MemoryStore


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """An artifact store of each kind: tests with this fixture run on both."""
    return ArtifactFolder(tmp_path) if request.param == "folder" else MemoryStore()


def damage(store: ArtifactStore, path: str, change: Callable[[bytes], bytes]) -> None:
    if isinstance(store, ArtifactFolder):
        file = store.root / path
        file.write_bytes(change(file.read_bytes()))
    else:
        assert isinstance(store, MemoryStore)
        data, written_at = store.files[path]
        store.files[path] = (change(data), written_at)


def age(store: ArtifactStore, *paths: str) -> None:
    for path in paths:
        if isinstance(store, ArtifactFolder):
            os.utime(store.root / path, (0, 0))
        else:
            assert isinstance(store, MemoryStore)
            store.files[path] = (store.files[path][0], 0.0)


def test_written_data_is_read_back(store: ArtifactStore) -> None:
    stored = store.write("job_1", ArtifactKind.CHECKPOINT, 7, 2, b"weights")
    assert store.read(stored.path, stored.sha256) == b"weights"
    assert stored.size_bytes == 7
    assert stored.name == "checkpoint-0007.safetensors"
    with store.open(stored.path) as file:
        assert file.read() == b"weights"
        assert file.seek(2) == 2
        assert file.read(3) == b"igh"
    store.check_writable()


def test_another_lease_writes_to_another_path(store: ArtifactStore) -> None:
    first = store.write("job_1", ArtifactKind.SAMPLE, 1, 1, b"same")
    second = store.write("job_1", ArtifactKind.SAMPLE, 1, 2, b"same")
    assert first.path != second.path
    assert first.sha256 == second.sha256


@pytest.mark.parametrize("change", [lambda data: b"weightz", lambda data: data[:3], lambda data: b""])
def test_damage_is_detected(store: ArtifactStore, change: Callable[[bytes], bytes]) -> None:
    stored = store.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, b"weights")
    damage(store, stored.path, change)
    with pytest.raises(ArtifactDamaged):
        store.read(stored.path, stored.sha256)


def test_a_missing_file_is_reported_as_damaged(store: ArtifactStore) -> None:
    stored = store.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, b"weights")
    store.remove([stored.path, "job_1/sample/never-there.png"])
    for read in (store.open, lambda path: store.read(path, stored.sha256)):
        with pytest.raises(ArtifactDamaged):
            read(stored.path)


def test_a_copy_is_independent_of_the_original(store: ArtifactStore) -> None:
    first = store.write("job_1", ArtifactKind.CHECKPOINT, 3, 1, b"weights")
    copied = store.copy(first.path, first.sha256, job_id="job_2", kind=ArtifactKind.CHECKPOINT, epoch=3)
    store.remove_job("job_1")
    assert store.read(copied.path, first.sha256) == b"weights"
    assert [item.path for item in store.stored()] == [copied.path]


def test_stored_files_are_listed_with_their_sizes(store: ArtifactStore) -> None:
    mine = store.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, b"weights")
    other = store.write("job_2", ArtifactKind.SAMPLE, 1, 1, b"picture!")
    assert {(item.path, item.size_bytes, item.job_id) for item in store.stored()} == {
        (mine.path, 7, "job_1"),
        (other.path, 8, "job_2"),
    }
    assert [item.path for item in store.stored("job_2")] == [other.path]
    assert list(store.stored("job_3")) == []


def test_only_the_newest_version_of_a_cached_image_is_kept(store: ArtifactStore) -> None:
    assert store.cached_image("job_1", "curves", "000001.png") is None
    store.cache_image("job_1", "curves", "000001.png", b"one")
    store.cache_image("job_1", "curves", "000001.svg", b"drawn")
    store.cache_image("job_1", "curves", "000002.png", b"two")
    assert store.cached_image("job_1", "curves", "000001.png") is None
    assert store.cached_image("job_1", "curves", "000002.png") == b"two"
    assert store.cached_image("job_1", "curves", "000001.svg") == b"drawn"


def test_old_files_without_a_row_are_swept(store: ArtifactStore) -> None:
    with_row = store.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, b"kept").path
    without_row = store.write("job_1", ArtifactKind.CHECKPOINT, 2, 1, b"lost").path
    of_deleted_job = store.write("job_2", ArtifactKind.SAMPLE, 1, 1, b"of a job that was deleted").path
    store.put_all({"job_1/checkpoint/.x.tmp": b"unfinished"})
    store.cache_image("job_1", "curves", "000001.png", b"drawn")
    store.cache_image("job_2", "curves", "000001.png", b"drawn of a job that was deleted")
    age(store, *[item.path for item in store.stored()])
    fresh = store.write("job_1", ArtifactKind.SAMPLE, 2, 1, b"about to be named").path

    def paths_with_rows(job_ids: object) -> dict[str, set[str]]:
        return {"job_1": {with_row}}

    expected = {without_row, of_deleted_job, "job_1/checkpoint/.x.tmp", "job_2/derived/curves-000001.png"}
    assert {item.path for item in store.orphans(paths_with_rows, older_than_s=60)} == expected
    store.remove(expected)
    assert {item.path for item in store.stored()} == {with_row, fresh, "job_1/derived/curves-000001.png"}


def test_a_deleted_job_leaves_no_files(store: ArtifactStore) -> None:
    store.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, b"x")
    store.cache_image("job_1", "curves", "000001.png", b"drawn")
    store.remove_job("job_1")
    assert list(store.stored()) == []


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
