from __future__ import annotations

import base64
import hashlib
import io
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tapeline import ApiError, Client, DownloadDamaged
from tapeline.downloads import safe_name
from tests.tapeline.stub.server import JOB, StubServer, response


def digest_of(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def test_a_download_is_complete_and_has_the_name_from_the_service(
    server: StubServer, client: Client, tmp_path: Path
) -> None:
    disposition = 'attachment; filename="checkpoint-0003.safetensors"'
    server.responses = [response(b"weights", Repr_Digest=digest_of(b"weights"), Content_Disposition=disposition)]
    path = client.download("/jobs/job_00000000000000000000000001/checkpoints/best", tmp_path)
    assert path == tmp_path / "checkpoint-0003.safetensors"
    assert path.read_bytes() == b"weights"


def test_a_damaged_download_leaves_the_old_file_and_nothing_else(
    server: StubServer, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "best").write_bytes(b"old")
    server.responses = [response(b"weighty", Repr_Digest=digest_of(b"weights"))]
    with pytest.raises(DownloadDamaged, match="SHA-256"):
        client.download("/jobs/job_00000000000000000000000001/checkpoints/best", tmp_path / "best")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"best": b"old"}


def test_a_redirected_download_is_verified_and_shows_its_key_to_no_other_host(
    server: StubServer, tmp_path: Path
) -> None:
    store = StubServer()
    location = {"Location": f"{store.url}/bucket/object?X-Amz-Signature=5ec7e7", "Repr_Digest": digest_of(b"weights")}
    server.responses = [response(b"", 302, **location, Content_Disposition='attachment; filename="a.zip"')] * 3
    store.responses = [response(b"weights"), response(b"weighty"), response(b"<Error/>", 403)]
    with closing(store), Client(server.url, key="tpl_secret") as client:
        assert client.download("/file", tmp_path) == tmp_path / "a.zip"
        with pytest.raises(DownloadDamaged, match="SHA-256"):
            client.download("/file", tmp_path)
        with pytest.raises(ApiError, match=f"{store.url}/bucket/object returned 403"):
            client.download("/file", tmp_path)
    assert "tpl_secret" in str(server.requests)
    assert "tpl_secret" not in str(store.requests)
    assert (tmp_path / "a.zip").read_bytes() == b"weights"


def test_a_folder_is_stored_whole_or_not_at_all_and_no_name_leaves_it(
    server: StubServer, client: Client, tmp_path: Path
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("top/model.sig", "top/../../evil", "/etc/passwd"):
            archive.writestr(name, name)
    whole = packed.getvalue()
    server.responses = [response(whole[:-30]), response(whole)]
    job = client.handle(JOB)
    with pytest.raises(DownloadDamaged, match="not a complete zip"):
        job.certificate(tmp_path / "new" / "folder")
    assert list((tmp_path / "new").iterdir()) == []
    folder = job.certificate(tmp_path / "new" / "folder")
    assert list((tmp_path / "new").iterdir()) == [folder]
    assert sorted(path.name for path in folder.iterdir()) == ["_.._evil", "etc_passwd", "model.sig"]
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_download_writes_through_a_pipe_or_symbolic_link(server: StubServer, client: Client, tmp_path: Path) -> None:
    pipe, link, real = tmp_path / "pipe", tmp_path / "link", tmp_path / "real"
    os.mkfifo(pipe)
    real.write_bytes(b"old")
    link.symlink_to(real)
    server.responses = [response(b"weights"), response(b"weights")]
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_bytes)
        client.download("/jobs/job_00000000000000000000000001/checkpoints/best", pipe)
        assert read.result(10) == b"weights"
    assert pipe.is_fifo()
    client.download("/jobs/job_00000000000000000000000001/checkpoints/best", link)
    assert link.is_symlink()
    assert real.read_bytes() == b"weights"
    assert len(list(tmp_path.iterdir())) == 3


def test_an_interrupted_download_is_retried(server: StubServer, client: Client, tmp_path: Path) -> None:
    def partial(request: BaseHTTPRequestHandler, body: bytes) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "7")
        request.end_headers()
        request.wfile.write(b"wei")
        request.close_connection = True

    server.responses = [partial, response(b"weights")]
    assert client.download("/file", tmp_path / "file").read_bytes() == b"weights"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "..", ".profile"])
def test_a_download_with_a_name_from_the_service_stays_in_the_folder(
    server: StubServer, client: Client, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    server.responses = [response(b"x", Content_Disposition=f'attachment; filename="{name}"')]
    path = client.download("/file", folder)
    assert path.resolve().parent == folder
    assert not path.name.startswith(".")


@pytest.mark.parametrize("name", ["../../escaped.txt", "/etc/passwd", "..", ".hidden", "a\\b", ""])
def test_a_safe_name_stays_in_the_folder_and_is_not_hidden(tmp_path: Path, name: str) -> None:
    assert (tmp_path / safe_name(name)).parent == tmp_path
    assert not safe_name(name).startswith(".")


def test_files_beyond_the_first_thousand_are_listed_page_by_page(server: StubServer, client: Client) -> None:
    def item(number: int, kind: str = "checkpoint") -> dict[str, Any]:
        return {"name": f"{number}.png", "url": f"/file/{number}", "kind": kind, "epoch": 9}

    first = [item(1, "sample")]
    results = {"artifacts": first, "next_cursor": "c1", "plots": {"curves": "/curves"}, "samples": {"film": None}}
    server.responses = [
        response({"id": JOB, "kind": "classifier"}),
        response(results),
        response({"data": [item(2)], "next_cursor": "c2"}),
        response({"data": [item(3)], "next_cursor": None}),
    ]
    files = client.job(JOB).files()
    assert files == [
        ("1.png", f"/jobs/{JOB}/samples/9.png"),  # as it is shown
        ("2.png", "/file/2"),
        ("3.png", "/file/3"),
        ("curves.png", "/curves"),
    ]
    paths = [f"/jobs/{JOB}/artifacts?cursor={cursor}" for cursor in ("c1", "c2")]
    assert [request[1] for request in server.requests][2:] == paths
