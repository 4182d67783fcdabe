"""An object store, or the way to it, that misbehaves: behind a proxy before the S3 server of moto."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.maintenance import store_probes
from service.storage import object_store
from service.storage.artifacts import ArtifactDamaged, ArtifactKind, ArtifactUnreadable
from service.storage.object_store import PART_BYTES, ObjectStore
from tests.object_servers import BUCKET, KEY, SECRET, Exchange, Fault, FaultyProxy, credentials, serve_seaweedfs
from tests.service.storage.test_store_conformance import open_bucket

ROOT = Path(__file__).parents[3]


@pytest.fixture
def proxy(moto: str) -> Iterator[FaultyProxy]:
    with closing(FaultyProxy(moto)) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """A store behind the proxy, whose lease, and with it the time for retries, is short."""
    return open_bucket(proxy.url, monkeypatch, lease_s=4)


def first(outcome: str | tuple[int, bytes], method: str = "PUT") -> Fault:
    """A fault that only the first request of a method meets."""
    left = [outcome]
    return lambda exchange: left.pop() if exchange.method == method and left else None


def always(outcome: str | tuple[int, bytes], *methods: str) -> Fault:
    return lambda exchange: outcome if not methods or exchange.method in methods else None


def xml(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test says</Message></Error>".encode()


def content(store: ObjectStore, path: str) -> bytes:
    with store.open(path) as file:
        return file.read()


@pytest.mark.parametrize("outcome", ["lose", (503, xml("SlowDown")), (409, xml("ConditionalRequestConflict"))])
def test_a_file_is_stored_once_although_the_first_request_fails(
    store: ObjectStore, proxy: FaultyProxy, outcome: str | tuple[int, bytes]
) -> None:
    proxy.fault = first(outcome)
    stored = store.write("job_1", ArtifactKind.SAMPLE, 1, 1, b"picture")
    assert store.read(stored.path, stored.sha256) == b"picture"
    assert [item.path for item in store.stored()] == [stored.path]


def test_a_repeated_request_meets_its_own_object(store: ObjectStore, proxy: FaultyProxy) -> None:
    """The first request arrives, its answer is another's: the client repeats it, and is refused for its own object."""

    def store_and_fail(exchange: Exchange) -> tuple[int, bytes] | None:
        if exchange.method != "PUT" or proxy.requests:
            return None
        proxy._forward(exchange, proxy.upstream)
        return 503, xml("InternalError")

    proxy.fault = store_and_fail
    store.put_all({"job_1/sample/x.png": b"picture"})
    assert [(method, status) for method, _, status in proxy.requests] == [("PUT", 503), ("PUT", 412), ("HEAD", 200)]
    assert content(store, "job_1/sample/x.png") == b"picture"


@pytest.mark.parametrize("status", [409, 412])
def test_an_object_of_another_is_not_replaced(store: ObjectStore, proxy: FaultyProxy, status: int) -> None:
    store.put_all({"job_1/sample/x.png": b"first"})
    proxy.fault = always((status, xml("PreconditionFailed")), "PUT")
    with pytest.raises(FileExistsError):
        store.put_all({"job_1/sample/x.png": b"second"})
    assert content(store, "job_1/sample/x.png") == b"first"


def test_a_conflict_that_does_not_end_is_an_error(store: ObjectStore, proxy: FaultyProxy) -> None:
    proxy.fault = always((409, xml("ConditionalRequestConflict")), "PUT")
    with pytest.raises(OSError, match="ConditionalRequestConflict"):
        store.put_all({"job_1/sample/x.png": b"picture"})


@pytest.mark.parametrize("size", [1000, PART_BYTES])
def test_half_an_answer_is_not_a_lost_file(store: ObjectStore, proxy: FaultyProxy, size: int) -> None:
    stored = store.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, os.urandom(size))
    proxy.fault = always("cut", "GET")
    with pytest.raises(ArtifactUnreadable):
        store.read(stored.path, stored.sha256)
    proxy.fault = first("cut", "GET")
    assert len(store.read(stored.path, stored.sha256)) == size


@pytest.mark.parametrize("outcome", ["cut", "lose", (503, xml("SlowDown"))])
def test_a_file_whose_later_parts_cannot_be_read_is_not_lost(
    store: ObjectStore, proxy: FaultyProxy, outcome: str | tuple[int, bytes]
) -> None:
    stored = store.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, os.urandom(PART_BYTES))
    proxy.fault = lambda exchange: None if exchange.headers.get("range", "").startswith("bytes=0-") else outcome
    with pytest.raises(ArtifactUnreadable):
        store.read(stored.path, stored.sha256)


@pytest.mark.parametrize("size", [1000, PART_BYTES])
def test_other_bytes_are_not_taken_for_the_file(store: ObjectStore, proxy: FaultyProxy, size: int) -> None:
    stored = store.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, os.urandom(size))
    proxy.fault = always("flip", "GET")
    with pytest.raises(ArtifactDamaged, match="SHA-256 differs"):
        store.read(stored.path, stored.sha256)


def test_a_cached_image_of_other_bytes_is_drawn_again(store: ObjectStore, proxy: FaultyProxy) -> None:
    store.cache_image("job_1", "curves", "000001.png", b"drawn")
    assert store.cached_image("job_1", "curves", "000001.png") == b"drawn"
    proxy.fault = always("flip", "GET")
    assert store.cached_image("job_1", "curves", "000001.png") is None


def test_a_cached_image_replaces_another_one_although_an_answer_is_lost(store: ObjectStore, proxy: FaultyProxy) -> None:
    store.cache_image("job_1", "curves", "000001.png", b"drawn")
    proxy.fault = first("lose", "PUT")
    store.cache_image("job_1", "curves", "000002.png", b"drawn later")
    assert store.cached_image("job_1", "curves", "000002.png") == b"drawn later"


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_store_that_is_silent_or_slow_is_an_error(
    store: ObjectStore, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    stored = store.write("job_1", ArtifactKind.CHECKPOINT, 1, 1, os.urandom(200_000))
    monkeypatch.setattr(object_store, "_MIN_TIMEOUT_S", 1.0)
    proxy.fault = always(fault)
    with pytest.raises(ArtifactUnreadable, match="silent or too slow"):
        store.read(stored.path, stored.sha256)
    with pytest.raises(OSError, match="silent or too slow"):
        store.check_writable() if fault == "hang" else store._read(stored.path, 0, 100_000)


def test_a_storm_of_503_ends_as_an_error_before_the_lease(store: ObjectStore, proxy: FaultyProxy) -> None:
    proxy.fault = always((503, xml("SlowDown")))
    calls: list[Callable[[], object]] = [
        lambda: store.put_all({"job_1/sample/x.png": b"picture"}),
        lambda: store.open("job_1/sample/x.png"),
        lambda: store.remove(["job_1/sample/x.png"]),
        lambda: list(store.stored()),
    ]
    for call in calls:
        began = time.monotonic()
        with pytest.raises((OSError, ArtifactUnreadable), match="SlowDown"):
            call()
        assert time.monotonic() - began < 4, "the time for retries is shorter than the lease"
    store.remove_folder("job_1")  # the files of a deleted job are left to the collection of garbage


@pytest.mark.parametrize(
    ("answer", "remedy", "number"),
    [
        ((404, xml("NoSuchBucket")), "there is no such bucket: create it", errno.ENODEV),
        ((301, b""), "in another region: set AWS_REGION", errno.EPERM),
        ((400, xml("AuthorizationHeaderMalformed")), "in another region: set AWS_REGION", errno.EPERM),
        ((403, xml("RequestTimeTooSkewed")), "synchronize it with NTP", errno.EPERM),
        ((403, xml("SignatureDoesNotMatch")), "the credentials are refused", errno.EACCES),
        ((400, xml("ExpiredToken")), "the credentials are refused", errno.EACCES),
        ((507, xml("InsufficientStorage")), "the store is full", errno.ENOSPC),
        ((403, xml("QuotaExceeded")), "the store is full", errno.ENOSPC),
    ],
)
def test_an_error_names_its_remedy(
    store: ObjectStore, proxy: FaultyProxy, answer: tuple[int, bytes], remedy: str, number: int
) -> None:
    proxy.fault = always(answer)
    with pytest.raises(OSError, match=remedy) as caught:
        store.check_writable()
    assert caught.value.errno == number
    with pytest.raises(ArtifactUnreadable, match=remedy):  # and no checkpoint counts as lost
        store.open("job_1/checkpoint/x")
    with pytest.raises(OSError, match=remedy):
        list(store.stored())
    with pytest.raises(OSError, match=remedy):
        store.remove(["job_1/checkpoint/x"])
    with pytest.raises(OSError, match=remedy) as of_id:
        store.read_id()
    assert str(of_id.value).count("Errno") == 1, "an error that wraps another has one number"
    assert SECRET not in str(caught.value)


def test_an_unknown_bucket_and_an_unreachable_server(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_bucket(moto, monkeypatch)
    with pytest.raises(OSError, match="no such bucket"):
        ObjectStore("s3://another", endpoint=moto, lease_s=4).check_writable()
    with pytest.raises(OSError, match="cannot be reached: check the network, TAPELINE_STORE_ENDPOINT"):
        ObjectStore(f"s3://{BUCKET}", endpoint="http://127.0.0.1:1", lease_s=4).check_writable()


def test_a_cloud_without_its_settings_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    store = ObjectStore("az://container/prefix", lease_s=4)
    for access in (store.prepare, store.check_writable):
        with pytest.raises(OSError, match="az://container/prefix: there are no credentials"):
            access()


@pytest.mark.nightly
def test_seaweedfs_refuses_wrong_credentials_and_an_unknown_bucket(
    seaweedfs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_bucket(seaweedfs, monkeypatch)
    with pytest.raises(OSError, match="no such bucket"):
        ObjectStore("s3://another", endpoint=seaweedfs, lease_s=4).check_writable()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "wrong")
        with pytest.raises(PermissionError, match="the credentials are refused"):
            ObjectStore(f"s3://{BUCKET}", endpoint=seaweedfs, lease_s=4).check_writable()


def test_replaced_credentials_are_read_again(
    store: ObjectStore, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in credentials():
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    accepted = {"key": KEY}

    def check_key(exchange: Exchange) -> tuple[int, bytes] | None:
        is_accepted = f"Credential={accepted['key']}/" in exchange.headers["authorization"]
        return None if is_accepted else (403, xml("InvalidAccessKeyId"))

    def write(key: str) -> None:
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {SECRET}\n")

    proxy.fault = check_key
    write(KEY)
    store.check_writable()
    accepted["key"] = "rotated"
    with pytest.raises(PermissionError, match="the credentials are refused"):
        store.check_writable()
    write("rotated")
    store.put_all({f"job_1/sample/{number}.png": b"picture" for number in range(8)})
    accepted["key"] = "rotated again"
    write("rotated again")
    store.check_writable()
    signing = ObjectStore(store.address, endpoint=proxy.url, lease_s=4, redirects=True)
    for key in ("first", "second"):  # no refusal tells that a URL needs other ones
        write(key)
        assert f"Credential={key}%2F" in (signing.download_url("job_1/sample/x.png", method="GET") or "")


def test_an_upload_that_loses_a_part_leaves_nothing(store: ObjectStore, proxy: FaultyProxy) -> None:
    data = os.urandom(3 * PART_BYTES)
    proxy.fault = lambda exchange: (503, xml("SlowDown")) if "partNumber=2" in exchange.path else None
    with pytest.raises(OSError, match="SlowDown"):
        store.put_all({"job_1/checkpoint/x": data})
    assert list(store.stored()) == []
    proxy.fault = lambda exchange: None
    store.put_all({"job_1/checkpoint/x": data})
    assert content(store, "job_1/checkpoint/x") == data


def test_a_name_that_is_taken_is_known_however_long_the_answer_took(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_bucket(proxy.url, monkeypatch, lease_s=0)
    store.put_all({"job_1/sample/x": b"first"})
    with pytest.raises(FileExistsError):
        store.put_all({"job_1/sample/x": b"second"})
    assert content(store, "job_1/sample/x") == b"first"


@pytest.mark.parametrize("lease_s", [4, pytest.param(0, id="longer than all retries")])
def test_an_upload_whose_last_answer_is_lost_is_complete(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, lease_s: float
) -> None:
    store = open_bucket(proxy.url, monkeypatch, lease_s=lease_s)
    left = ["lose"]
    proxy.fault = lambda exchange: (
        left.pop() if exchange.method == "POST" and "uploadId" in exchange.path and left else None
    )
    store.put_all({"job_1/checkpoint/x": os.urandom(2 * PART_BYTES)})
    assert not left
    assert [item.size_bytes for item in store.stored()] == [2 * PART_BYTES]


def test_the_fork_of_a_process_cannot_use_its_store(moto: str) -> None:
    code = f"""
import os, sys
from service.storage.object_store import ObjectStore, StoreForked
store = ObjectStore("s3://{BUCKET}/fork", endpoint="{moto}", lease_s=15)
assert "obstore" not in sys.modules
store.check_writable()
if (pid := os.fork()) == 0:
    try:
        store.check_writable()
    except StoreForked as error:
        os._exit(7 if "open it after the last fork" in str(error) else 1)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | credentials(), capture_output=True)
    assert done.returncode == 7, done.stderr.decode()


@pytest.mark.nightly
@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl command")
def test_a_certificate_must_be_from_a_trusted_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("ours", "others"):
        command = ["sh", ROOT / "deploy" / "certificates.sh", tmp_path / folder, "127.0.0.1"]
        subprocess.run(command, check=True, capture_output=True)
    for name, value in credentials().items():
        monkeypatch.setenv(name, value)
    with serve_seaweedfs(tmp_path, certificates=tmp_path / "ours") as url:
        address = f"s3://{BUCKET}/certified"
        ours = ObjectStore(address, endpoint=url, ca=str(tmp_path / "ours" / "ca.crt"), lease_s=4)
        ours.check_writable()
        assert store_probes.examine(ours, url=address, endpoint=url, ca=str(tmp_path / "ours" / "ca.crt"))
        for ca in ("", str(tmp_path / "others" / "ca.crt")):
            with pytest.raises(
                OSError, match="cannot be reached: check the network, TAPELINE_STORE_ENDPOINT and TAPELINE_CA"
            ):
                ObjectStore(address, endpoint=url, ca=ca, lease_s=4).check_writable()
