"""How far an upload is: seen by its owner while it is received and read, and by nobody afterwards."""

from __future__ import annotations

import io
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

from service.datasets.sandbox import import_in_sandbox
from service.web.files.upload_progress import UploadState
from service.web.services import EXTENSION, Services
from tests.service.datasets.formats.test_photos import zipped
from tests.service.web.conftest import MakeApp
from tests.waiting import wait_until

ID = "3f1f8f2a-7d10"


def large_table() -> bytes:
    """A table that takes the service seconds to read: several intervals in which it reports."""
    rows = np.random.default_rng(0).random((1_000, 12)).round(6).tolist()
    lines = "".join(",".join(map(str, row)) + f",{'ab'[n % 2]}\n" for n, row in enumerate(rows))
    return (",".join([*(f"c{n}" for n in range(12)), "label"]) + "\n" + 300 * lines).encode()


class Slow(io.BytesIO):
    """A body of which the second half arrives when the test says so."""

    def __init__(self, data: bytes, release: threading.Event) -> None:
        super().__init__(data)
        self._half, self._release = len(data) // 2, release

    def readinto(self, buffer: Any, /) -> int:
        if self.tell() >= self._half:
            assert self._release.wait(30)
        return super().readinto(buffer)


def post(client: FlaskClient, data: bytes, release: threading.Event, **headers: str) -> Any:
    boundary, body = encode_multipart({"name": "large", "table": FileStorage(io.BytesIO(data), "large.csv")})
    return client.post(
        "/datasets",
        input_stream=Slow(body, release),
        content_type=f"multipart/form-data; boundary={boundary}",
        headers=headers,
    )


@pytest.mark.slow
def test_an_upload_tells_its_owner_how_far_it_is(make_app: MakeApp, either_url: str) -> None:
    app = make_app(either_url)
    client, told, answers = app.test_client(), [], []
    absent = {"id": ID, "state": "absent", "received_bytes": 0, "total_bytes": None, "fraction": None}
    assert client.get(f"/uploads/{ID}").json == absent
    release = threading.Event()
    data = large_table()
    sender = threading.Thread(
        target=lambda: answers.append(post(app.test_client(), data, release, **{"Upload-Id": ID}))
    )
    sender.start()
    wait_until(lambda: client.get(f"/uploads/{ID}").json != absent, "the upload")
    # Progress is noted a few times a second.
    wait_until(lambda: client.get(f"/uploads/{ID}").json["received_bytes"] > 0, "the first part")
    waiting = client.get(f"/uploads/{ID}").json
    assert (waiting["id"], waiting["state"]) == (ID, "receiving")
    assert 0 < waiting["received_bytes"] < waiting["total_bytes"]
    assert waiting["fraction"] == pytest.approx(waiting["received_bytes"] / waiting["total_bytes"])
    here: Services = app.extensions[EXTENSION]
    assert here.progress.look_up("somebody else", ID).state is UploadState.ABSENT
    release.set()
    while sender.is_alive():
        progress = client.get(f"/uploads/{ID}").json
        if progress["state"] == "reading":
            told.append(progress["fraction"])
        time.sleep(0.02)
    assert answers[0].status_code == 201, answers[0].text
    assert told == sorted(told)
    assert len(set(told)) >= 3
    assert max(told) > 0.5
    assert client.get(f"/uploads/{ID}").json == absent
    assert not (here.settings.artifacts / "datasets" / ".progress").exists()


def test_a_refused_upload_leaves_no_progress_behind(client: FlaskClient) -> None:
    release = threading.Event()
    release.set()
    assert post(client, b"a,b\n1\n", release, **{"Upload-Id": ID}).status_code == 422
    assert client.get(f"/uploads/{ID}").json["state"] == "absent"


@pytest.mark.parametrize("upload_id", ["short", "x" * 65, "../../../etc/passwd", "a b c d e f g"])
def test_an_invalid_upload_id_is_rejected(client: FlaskClient, upload_id: str) -> None:
    problem = post(client, b"", threading.Event(), **{"Upload-Id": upload_id})
    assert problem.status_code == 400
    assert problem.json["errors"][0]["parameter"] == "Upload-Id"


@pytest.mark.slow
def test_the_sandbox_tells_how_many_images_are_decoded(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)).save(data, "PNG")
    files = {f"{'ab'[number % 2]}/{number}.png": data.getvalue() for number in range(300)}
    (tmp_path / "arrays").mkdir()
    told: list[float] = []
    import_in_sandbox(
        {"archive": zipped(tmp_path / "a.zip", files)}, tmp_path / "arrays", fraction=None, on_progress=told.append
    )
    assert told == sorted(told)
    assert len(told) >= 2
    assert 0 < told[0] < told[-1] <= 1


def test_what_a_killed_process_left_behind_is_no_upload(app: Flask, client: FlaskClient) -> None:
    here: Services = app.extensions[EXTENSION]
    board = here.progress
    with board.upload(None, ID, 100) as notes:
        notes.received(50)
        assert client.get(f"/uploads/{ID}").json["state"] == "receiving"
        (file,) = (here.settings.artifacts / "datasets" / ".progress").glob("*.json")
        long_ago = time.time() - 3600
        os.utime(file, (long_ago, long_ago))
        assert client.get(f"/uploads/{ID}").json["state"] == "absent"
    assert not file.parent.exists()
