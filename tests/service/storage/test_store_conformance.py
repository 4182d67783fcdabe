"""What holds for every artifact store: a folder, SeaweedFS, and the S3 server of moto. Each runs for real."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from service.storage import object_store
from service.storage.artifacts import ArtifactDamaged, ArtifactKind, ArtifactStore
from service.storage.object_store import PART_BYTES, ObjectStore
from service.storage.stores import ArtifactFolder
from tests.object_servers import BUCKET, FaultyProxy, credentials
from tests.waiting import wait_until

SERVERS = ["moto", pytest.param("seaweedfs", marks=pytest.mark.stack)]


def open_bucket(url: str, monkeypatch: pytest.MonkeyPatch, *, lease_s: float = 15) -> ObjectStore:
    """A store in a part of the bucket that no other test uses."""
    for name, value in credentials().items():
        monkeypatch.setenv(name, value)
    return ObjectStore(f"s3://{BUCKET}/tests/{secrets.token_hex(4)}", endpoint=url, lease_s=lease_s)


@pytest.fixture(params=["folder", *SERVERS])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    """An artifact store of each kind: tests with this fixture run on all of them."""
    if request.param == "folder":
        return ArtifactFolder(tmp_path)
    return open_bucket(request.getfixturevalue(request.param), monkeypatch)


@pytest.fixture(params=SERVERS)
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    return open_bucket(request.getfixturevalue(request.param), monkeypatch)


def damage(store: ArtifactStore, path: str, change: Callable[[bytes], bytes]) -> None:
    """Change the content of a file, as a failing disk does."""
    if isinstance(store, ArtifactFolder):
        file = store.root / path
        file.write_bytes(change(file.read_bytes()))
    else:
        assert isinstance(store, ObjectStore)
        found = store._client(30).get(path)
        store._client(30).put(path, change(found.bytes().to_bytes()), attributes=found.attributes)


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
    store.remove_folder("job_1")
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


def test_only_the_newest_version_of_a_cached_image_is_kept(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.cached_image("job_1", "curves", "000001.png") is None
    with monkeypatch.context() as without_lists:
        without_lists.setattr(type(store), "stored", lambda *_: pytest.fail("a list of the store takes long"))
        store.cache_image("job_1", "curves", "000001.png", b"one")
        store.cache_image("job_1", "curves", "000001.svg", b"drawn")
        store.cache_image("job_1", "curves", "000002.png", b"two")
    assert {item.path for item in store.stored()} == {"job_1/derived/curves.png", "job_1/derived/curves.svg"}
    assert store.cached_image("job_1", "curves", "000001.png") is None
    assert store.cached_image("job_1", "curves", "000002.png") == b"two"
    assert store.cached_image("job_1", "curves", "000001.svg") == b"drawn"
    damage(store, "job_1/derived/curves.svg", lambda data: data[:-1] + b"!")
    assert store.cached_image("job_1", "curves", "000001.svg") is None


def test_old_files_without_a_row_are_swept(store: ArtifactStore) -> None:
    with_row = store.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, b"kept").path
    without_row = store.write("job_1", ArtifactKind.CHECKPOINT, 2, 1, b"lost").path
    of_deleted_job = store.write("job_2", ArtifactKind.SAMPLE, 1, 1, b"of a job that was deleted").path
    store.put_all({"job_1/checkpoint/.x.tmp": b"unfinished"})
    store.cache_image("job_1", "curves", "000001.png", b"drawn")
    store.cache_image("job_2", "curves", "000001.png", b"drawn of a job that was deleted")
    old = [replace(item, age_s=1e6) for item in store.stored()]
    fresh = store.write("job_1", ArtifactKind.SAMPLE, 2, 1, b"about to be named").path

    def paths_with_rows(job_ids: object) -> dict[str, set[str]]:
        return {"job_1": {with_row}}

    expected = {without_row, of_deleted_job, "job_1/checkpoint/.x.tmp", "job_2/derived/curves.png"}
    young = [item for item in store.stored() if item.path == fresh]
    orphans = store.orphans(paths_with_rows, older_than_s=60, among=[*old, *young])
    assert {item.path for item in orphans} == expected
    store.remove(expected)
    assert {item.path for item in store.stored()} == {with_row, fresh, "job_1/derived/curves.png"}


def test_a_deleted_job_leaves_no_files(store: ArtifactStore) -> None:
    store.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, b"x")
    store.cache_image("job_1", "curves", "000001.png", b"drawn")
    store.remove_folder("job_1")
    assert list(store.stored()) == []


@pytest.mark.parametrize("path", ["", "..", "../x", "job_1//x", "/etc/passwd", "job_1/../x", "job_1/a\0b"])
def test_a_path_that_no_store_assigned_is_not_opened(store: ArtifactStore, path: str) -> None:
    with pytest.raises(ArtifactDamaged):
        store.open(path)


def test_no_name_is_used_twice(store: ArtifactStore) -> None:
    files = [store.write("job_1", ArtifactKind.ONNX, 1, 0, b"the same") for _ in range(3)]
    store.remove([files[0].path])
    assert len({file.path for file in files}) == 3
    assert store.read(files[1].path, files[0].sha256) == b"the same"


def test_a_file_is_created_once(store: ArtifactStore) -> None:
    store.create("mark", b"first")
    store.create("mark", b"second")
    with store.open("mark") as file:
        assert file.read() == b"first"
    assert list(store.stored()) == []


def test_an_empty_file_is_read(store: ArtifactStore) -> None:
    stored = store.write("job_1", ArtifactKind.SAMPLE, 1, 1, b"")
    assert store.read(stored.path, stored.sha256) == b""


def test_a_file_of_several_parts_is_read_whole_and_in_ranges(store: ArtifactStore) -> None:
    data = os.urandom(2 * PART_BYTES + 12345)
    stored = store.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, data)
    assert store.read(stored.path, stored.sha256) == data
    assert [item.size_bytes for item in store.stored("job_1")] == [len(data)]
    with store.open(stored.path) as file:
        assert file.seek(0, os.SEEK_END) == len(data)
        assert file.read(1) == b""
        for start in (len(data) - 7, PART_BYTES - 3, 0, 5):
            assert file.seek(start) == start
            assert file.read(7) == data[start : start + 7]


def test_several_files_are_stored_and_removed_at_once(store: ArtifactStore) -> None:
    contents = {f"job_1/sample/{number}.png": str(number).encode() for number in range(12)}
    store.put_all(contents)
    assert {item.path for item in store.stored("job_1")} == set(contents)
    store.remove([*contents, "job_1/sample/absent.png"])
    store.remove(contents)
    assert list(store.stored("job_1")) == []
    store.remove_folder("job_1")


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("status", [501, 405])
def test_files_are_removed_from_a_server_that_deletes_only_one_per_request(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, server: str, status: int
) -> None:
    with closing(FaultyProxy(request.getfixturevalue(server))) as proxy:
        store = open_bucket(proxy.url, monkeypatch, lease_s=4)
        proxy.fault = lambda exchange: (status, b"") if exchange.method == "POST" else None
        paths = [f"job_1/sample/{number}.png" for number in range(5)]
        refused = []
        for _ in range(2):
            store.put_all(dict.fromkeys(paths, b"picture"))
            store.remove([*paths, "job_1/sample/absent.png"])
            assert list(store.stored()) == []
            refused.append(sum(method == "POST" for method, *_ in proxy.requests))
        assert refused[0] == refused[1] > 0  # it was not asked again


def test_a_probe_leaves_nothing_behind(store: ArtifactStore) -> None:
    store.check_writable()
    store.check_writable(3_000_000)
    assert list(store.stored()) == []


def test_of_fifty_that_create_one_name_one_wins(bucket: ObjectStore, request: pytest.FixtureRequest) -> None:
    if "moto" in request.node.name:
        pytest.skip("moto has no lock")

    def create(number: int) -> bool:
        try:
            bucket.put_all({"job_1/sample/one.png": str(number).encode()})
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(50) as pool:
        won = [number for number, wins in enumerate(pool.map(create, range(50))) if wins]
    with bucket.open("job_1/sample/one.png") as file:
        assert [int(file.read())] == won


def test_a_signed_url_serves_a_file_as_the_service_would_until_it_expires(
    bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    assert bucket.download_url("job_1/sample/x.png", method="GET") is None
    bucket = ObjectStore(bucket.address, endpoint=bucket._endpoint, lease_s=15, redirects=True)
    monkeypatch.setattr(object_store, "URL_VALID_S", 3)
    for kind, size, media_type, name in (
        (ArtifactKind.HUGGINGFACE, 3, "application/zip", "job_1-epoch-0007-huggingface.zip"),
        (ArtifactKind.CHECKPOINT, PART_BYTES + 1, "application/octet-stream", "job_1-epoch-0007.safetensors"),
    ):
        data = os.urandom(size)
        stored = bucket.write("job_1", kind, 7, 1, data)
        url = bucket.download_url(stored.path, method="GET") or ""
        answer = httpx.get(url)
        assert (answer.status_code, answer.content) == (200, data)
        assert answer.headers["Content-Type"] == media_type
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
        assert httpx.head(bucket.download_url(stored.path, method="HEAD") or "").headers["Content-Length"] == str(size)
    if "moto" not in request.node.name:  # which checks no signature
        wait_until(lambda: httpx.get(url).status_code == 403, "the end of the URL")
        assert httpx.get(url.replace("job_1", "job_2")).status_code == 403
