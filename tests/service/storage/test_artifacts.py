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
    """What runs with this runs on each store."""
    return ArtifactFolder(tmp_path) if request.param == "folder" else MemoryStore()


def damage(store: ArtifactStore, path: str, change: Callable[[bytes], bytes]) -> None:
    if isinstance(store, ArtifactFolder):
        file = store.root / path
        file.write_bytes(change(file.read_bytes()))
    else:
        assert isinstance(store, MemoryStore)
        data, at = store.files[path]
        store.files[path] = (change(data), at)


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


def test_another_lease_writes_another_file(store: ArtifactStore) -> None:
    first = store.write("job_1", ArtifactKind.SAMPLE, 1, 1, b"same")
    second = store.write("job_1", ArtifactKind.SAMPLE, 1, 2, b"same")
    assert first.path != second.path
    assert first.sha256 == second.sha256


@pytest.mark.parametrize("change", [lambda data: b"weightz", lambda data: data[:3], lambda data: b""])
def test_damage_is_found_out(store: ArtifactStore, change: Callable[[bytes], bytes]) -> None:
    stored = store.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, b"weights")
    damage(store, stored.path, change)
    with pytest.raises(ArtifactDamaged):
        store.read(stored.path, stored.sha256)


def test_what_is_missing_is_damaged(store: ArtifactStore) -> None:
    stored = store.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, b"weights")
    store.remove([stored.path, "job_1/sample/never-there.png"])
    for read in (store.open, lambda path: store.read(path, stored.sha256)):
        with pytest.raises(ArtifactDamaged):
            read(stored.path)


def test_a_copy_is_a_file_of_its_own(store: ArtifactStore) -> None:
    first = store.write("job_1", ArtifactKind.CHECKPOINT, 3, 1, b"weights")
    copied = store.copy(first.path, first.sha256, job_id="job_2", kind=ArtifactKind.CHECKPOINT, epoch=3)
    store.remove_job("job_1")
    assert store.read(copied.path, first.sha256) == b"weights"
    assert [item.path for item in store.stored()] == [copied.path]


def test_what_is_stored_is_listed_with_its_size(store: ArtifactStore) -> None:
    mine = store.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, b"weights")
    other = store.write("job_2", ArtifactKind.SAMPLE, 1, 1, b"picture!")
    assert {(item.path, item.size_bytes, item.job_id) for item in store.stored()} == {
        (mine.path, 7, "job_1"),
        (other.path, 8, "job_2"),
    }
    assert [item.path for item in store.stored("job_2")] == [other.path]
    assert list(store.stored("job_3")) == []


def test_what_can_be_made_again_is_kept_in_its_newest_version(store: ArtifactStore) -> None:
    assert store.cached_image("job_1", "curves", "000001.png") is None
    store.cache_image("job_1", "curves", "000001.png", b"one")
    store.cache_image("job_1", "curves", "000001.svg", b"drawn")
    store.cache_image("job_1", "curves", "000002.png", b"two")
    assert store.cached_image("job_1", "curves", "000001.png") is None
    assert store.cached_image("job_1", "curves", "000002.png") == b"two"
    assert store.cached_image("job_1", "curves", "000001.svg") == b"drawn"


def test_old_files_that_no_row_names_are_swept_away(store: ArtifactStore) -> None:
    kept = store.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, b"kept").path
    lost = store.write("job_1", ArtifactKind.CHECKPOINT, 2, 1, b"lost").path
    gone = store.write("job_2", ArtifactKind.SAMPLE, 1, 1, b"of a job that was deleted").path
    store.put("job_1/checkpoint/.x.tmp", b"unfinished")
    store.cache_image("job_1", "curves", "000001.png", b"drawn")
    store.cache_image("job_2", "curves", "000001.png", b"drawn of a job that was deleted")
    age(store, *[item.path for item in store.stored()])
    fresh = store.write("job_1", ArtifactKind.SAMPLE, 2, 1, b"about to be named").path

    def named(job_ids: object) -> dict[str, set[str]]:
        return {"job_1": {kept}}

    expected = {lost, gone, "job_1/checkpoint/.x.tmp", "job_2/derived/curves-000001.png"}
    assert {item.path for item in store.orphans(named, older_than_s=60)} == expected
    assert {item.path for item in store.sweep(named, older_than_s=60)} == expected
    assert {item.path for item in store.stored()} == {kept, fresh, "job_1/derived/curves-000001.png"}


def test_a_deleted_job_leaves_nothing(store: ArtifactStore) -> None:
    store.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, b"x")
    store.cache_image("job_1", "curves", "000001.png", b"drawn")
    store.remove_job("job_1")
    assert list(store.stored()) == []


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


def test_the_files_of_an_epoch_are_synced_before_any_is_named_and_each_folder_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = ArtifactFolder(tmp_path), list[str]()
    folder.write_all("job_1", 1, 1, {ArtifactKind.CHECKPOINT: b"weights", ArtifactKind.SAMPLE: b"picture"})
    fsync, rename = os.fsync, Path.rename

    def sync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        seen.append(f"sync {path.name if path.is_dir() else f'a file in {path.parent.name}'}")
        fsync(descriptor)

    def name(path: Path, target: Path) -> Path:
        seen.append(f"name {target.parent.name}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", name)
    files = folder.write_all("job_1", 2, 1, {ArtifactKind.CHECKPOINT: b"heavier", ArtifactKind.SAMPLE: b"clearer"})
    assert seen == [
        *("sync a file in checkpoint", "sync a file in sample"),
        *("name checkpoint", "name sample"),
        *("sync checkpoint", "sync sample"),
    ]
    assert [folder.read(file.path, file.sha256) for file in files] == [b"heavier", b"clearer"]


def test_when_one_of_several_files_cannot_be_synced_none_is_left_behind(
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
