"""Downloads that the service redirects to SeaweedFS, behind a proxy that sees what the store gets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.local import LocalStack
from service.runtime.settings import Settings
from tapeline import Client, DownloadDamaged
from tapeline.job import Job
from tests.object_servers import BUCKET, Exchange, FaultyProxy, credentials

# tests/service/storage/test_store_conformance.py, tests/service/web and tests/tapeline have the parts
pytestmark = pytest.mark.nightly

API_KEY = "the key of these tests"


@pytest.fixture(scope="module")
def proxy(seaweedfs: str) -> Iterator[FaultyProxy]:
    with closing(FaultyProxy(seaweedfs)) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def stack(proxy: FaultyProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    environ = {"TAPELINE_HOME": str(tmp_path_factory.mktemp("home")), "TAPELINE_PORT": "0", "TAPELINE_AUTH": "keys"}
    environ |= {"TAPELINE_STORE": f"s3://{BUCKET}/redirected", "TAPELINE_STORE_ENDPOINT": proxy.url}
    environ |= {"TAPELINE_STORE_REDIRECT": "1", "TAPELINE_API_KEYS": API_KEY}
    with pytest.MonkeyPatch.context() as patched:
        for name, value in credentials().items():
            patched.setenv(name, value)
        with LocalStack(Settings.from_env(environ, cores=2)) as running:
            yield running


@pytest.fixture(scope="module")
def client(stack: LocalStack) -> Iterator[Client]:
    with Client(stack.url, key=API_KEY) as client:
        yield client


@pytest.fixture(scope="module")
def job(client: Client) -> Job:
    job = client.submit({"kind": "gan", "epochs": 2, "samples": {"count": 16}})
    assert job.wait().status == "succeeded"
    return job


@pytest.fixture
def http(stack: LocalStack) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    with httpx.Client(base_url=stack.url, headers=headers, timeout=60) as http:
        yield http


@pytest.fixture
def downloads(proxy: FaultyProxy) -> Iterator[list[Exchange]]:
    """The requests to signed URLs."""
    found: list[Exchange] = []

    def record(exchange: Exchange) -> None:
        if "X-Amz-Signature" in exchange.path:
            found.append(exchange)

    proxy.fault = record
    yield found
    proxy.fault = lambda exchange: None


def checkpoint_of(http: httpx.Client, job: Job) -> dict[str, Any]:
    checkpoint: dict[str, Any] = http.get(f"/jobs/{job.id}/results").json()["checkpoints"]["latest"]
    return checkpoint


def test_a_download_is_redirected_to_the_store_which_serves_it_as_the_service_would(
    http: httpx.Client, job: Job, downloads: list[Exchange]
) -> None:
    checkpoint = checkpoint_of(http, job)
    redirect = http.get(checkpoint["url"])
    assert (redirect.status_code, redirect.content, redirect.headers["Cache-Control"]) == (302, b"", "no-store")
    assert "X-Amz-Expires=900&" in redirect.headers["Location"]
    answer = httpx.get(redirect.headers["Location"])
    assert hashlib.sha256(answer.content).hexdigest() == checkpoint["sha256"]
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{job.id}-epoch-0002.safetensors"'
    end = http.get(checkpoint["url"], headers={"Range": "bytes=-100"}, follow_redirects=True)
    assert (end.status_code, end.content) == (206, answer.content[-100:])
    head = http.head(checkpoint["url"], follow_redirects=True)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(checkpoint["size_bytes"]))
    assert [exchange.method for exchange in downloads] == ["GET", "GET", "HEAD"]
    assert not [name for exchange in downloads for name in exchange.headers if name.lower() == "authorization"]


def test_conditions_and_images_are_answered_by_the_service(http: httpx.Client, job: Job) -> None:
    checkpoint = checkpoint_of(http, job)
    etag = f'"{checkpoint["sha256"]}"'
    assert http.get(checkpoint["url"], headers={"If-None-Match": etag}).status_code == 304
    assert http.get(checkpoint["url"], headers={"If-Match": '"other"'}).status_code == 412
    resumed = http.get(checkpoint["url"], headers={"If-Range": etag, "Range": "bytes=10-"})
    assert (resumed.status_code, len(resumed.content)) == (206, checkpoint["size_bytes"] - 10)
    sample = http.get(f"/jobs/{job.id}/samples/latest.png")
    assert (sample.status_code, sample.headers["Content-Type"]) == (200, "image/png")
    assert http.get(f"/jobs/{job.id}/checkpoints/latest", headers={"Authorization": ""}).status_code == 401


def test_the_client_downloads_from_the_store_without_showing_its_key(
    client: Client, http: httpx.Client, job: Job, downloads: list[Exchange], tmp_path: Path
) -> None:
    checkpoint = checkpoint_of(http, job)
    saved = client.download(f"/jobs/{job.id}/checkpoints/latest", tmp_path)
    assert saved.name == f"{job.id}-epoch-0002.safetensors"
    assert hashlib.sha256(saved.read_bytes()).hexdigest() == checkpoint["sha256"]
    assert job.export("torch", to=tmp_path).name == f"{job.id}-epoch-0002-torch.zip"
    files = job.download(tmp_path / "all")
    assert {path.suffix for path in files} >= {".safetensors", ".png", ".zip"}
    assert len(downloads) >= 4
    assert not [value for exchange in downloads for value in exchange.headers.values() if API_KEY in value]


def test_the_client_refuses_other_bytes_and_a_failing_store_does_not_show_the_signature(
    client: Client, job: Job, proxy: FaultyProxy, tmp_path: Path
) -> None:
    proxy.fault = lambda exchange: "flip"
    try:
        with pytest.raises(DownloadDamaged, match="SHA-256"):
            client.download(f"/jobs/{job.id}/checkpoints/latest", tmp_path)
        proxy.fault = lambda exchange: (403, b"<Error/>")
        with pytest.raises(Exception, match="returned 403") as caught:
            client.download(f"/jobs/{job.id}/checkpoints/latest", tmp_path)
        assert "Signature" not in str(caught.value)
    finally:
        proxy.fault = lambda exchange: None
    assert list(tmp_path.iterdir()) == []
