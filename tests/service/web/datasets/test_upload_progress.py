"""Upload progress: visible to its owner while the upload is received and read, and gone afterwards."""

from __future__ import annotations

import io
import threading
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import event, func, select, update
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

from service.datasets.sandbox import import_in_sandbox
from service.storage.database import Database
from service.storage.owner_tables import UploadProgress
from service.web.core.core import EXTENSION, Core, provided
from service.web.datasets import upload_progress
from service.web.datasets.upload_progress import ProgressBoard, UploadState
from service.web.http.problems import Problem
from tests.service.datasets.formats.test_photos import write_zip
from tests.service.web.conftest import MakeApp
from tests.waiting import wait_until

UPLOAD_ID = "3f1f8f2a-7d10"


def core_of(app: Flask) -> Core:
    core: Core = app.extensions[EXTENSION]
    return core


def rows(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(UploadProgress)) or 0


def large_table() -> bytes:
    """A table that takes the service seconds to read, which is several of its reporting intervals."""
    rows = np.random.default_rng(0).random((1_000, 12)).round(6).tolist()
    lines = "".join(",".join(map(str, row)) + f",{'ab'[n % 2]}\n" for n, row in enumerate(rows))
    return (",".join([*(f"c{n}" for n in range(12)), "label"]) + "\n" + 300 * lines).encode()


class HalfBlockedBody(io.BytesIO):
    """A body whose second half arrives once the test releases it."""

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
        input_stream=HalfBlockedBody(body, release),
        content_type=f"multipart/form-data; boundary={boundary}",
        headers=headers,
    )


@pytest.mark.nightly
def test_an_upload_reports_its_progress_to_its_owner_only(make_app: MakeApp, migrated_url: str) -> None:
    app = make_app(migrated_url)
    client, fractions, responses = app.test_client(), [], []
    absent = {"id": UPLOAD_ID, "state": "absent", "received_bytes": 0, "total_bytes": None, "fraction": None}
    assert client.get(f"/uploads/{UPLOAD_ID}").json == absent
    release = threading.Event()
    data = large_table()
    sender = threading.Thread(
        target=lambda: responses.append(post(app.test_client(), data, release, **{"Upload-Id": UPLOAD_ID}))
    )
    sender.start()
    wait_until(lambda: client.get(f"/uploads/{UPLOAD_ID}").json != absent, "the upload")
    # Progress is recorded a few times per second.
    wait_until(lambda: client.get(f"/uploads/{UPLOAD_ID}").json["received_bytes"] > 0, "the first part")
    receiving = client.get(f"/uploads/{UPLOAD_ID}").json
    assert (receiving["id"], receiving["state"]) == (UPLOAD_ID, "receiving")
    assert 0 < receiving["received_bytes"] < receiving["total_bytes"]
    assert receiving["fraction"] == pytest.approx(receiving["received_bytes"] / receiving["total_bytes"])
    assert provided(ProgressBoard, app).look_up("somebody else", UPLOAD_ID).state is UploadState.ABSENT
    release.set()
    while sender.is_alive():
        progress = client.get(f"/uploads/{UPLOAD_ID}").json
        if progress["state"] == "reading":
            fractions.append(progress["fraction"])
        time.sleep(0.02)
    assert responses[0].status_code == 201, responses[0].text
    assert fractions == sorted(fractions)
    assert len(set(fractions)) >= 2
    assert max(fractions) > 0.5
    assert client.get(f"/uploads/{UPLOAD_ID}").json == absent


def test_an_upload_is_seen_and_cancelled_through_a_process_that_shares_only_database_and_store(
    make_app: MakeApp, migrated_url: str, tmp_path: Path
) -> None:
    store = f"file://{tmp_path / 'store'}"
    receiving, other = (
        make_app(migrated_url, home=tmp_path / name, artifacts=tmp_path / name / "artifacts", store=store)
        for name in ("first", "second")
    )
    client, release, responses = other.test_client(), threading.Event(), list[Any]()
    data, headers = large_table(), {"Upload-Id": UPLOAD_ID}
    sender = threading.Thread(target=lambda: responses.append(post(receiving.test_client(), data, release, **headers)))
    sender.start()
    try:
        wait_until(lambda: client.get(f"/uploads/{UPLOAD_ID}").json["state"] == "receiving", "the upload")
        assert client.delete(f"/uploads/{UPLOAD_ID}").status_code == 204
    finally:
        release.set()
        sender.join()
    assert (responses[0].status_code, responses[0].json["code"]) == (409, "upload_cancelled")
    assert client.get(f"/uploads/{UPLOAD_ID}").json["state"] == "absent"
    assert client.get("/datasets/large").status_code == 404


def test_a_refused_upload_leaves_no_progress_behind(client: FlaskClient) -> None:
    release = threading.Event()
    release.set()
    assert post(client, b"a,b\n1\n", release, **{"Upload-Id": UPLOAD_ID}).status_code == 422
    assert client.get(f"/uploads/{UPLOAD_ID}").json["state"] == "absent"


@pytest.mark.parametrize("upload_id", ["short", "x" * 65, "../../../etc/passwd", "a b c d e f g"])
def test_an_invalid_upload_id_is_rejected(client: FlaskClient, upload_id: str) -> None:
    problem = post(client, b"", threading.Event(), **{"Upload-Id": upload_id})
    assert problem.status_code == 400
    assert problem.json["errors"][0]["parameter"] == "Upload-Id"


@pytest.mark.nightly
def test_the_sandbox_reports_the_fraction_of_images_that_are_decoded(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)).save(data, "PNG")
    files = {f"{'ab'[number % 2]}/{number}.png": data.getvalue() for number in range(300)}
    (tmp_path / "arrays").mkdir()
    fractions: list[float] = []
    import_in_sandbox(
        {"archive": write_zip(tmp_path / "a.zip", files)},
        tmp_path / "arrays",
        fraction=None,
        on_progress=fractions.append,
    )
    assert fractions == sorted(fractions)
    assert len(fractions) >= 2
    assert 0 < fractions[0] < fractions[-1] <= 1


def test_the_progress_of_a_killed_process_ends_by_the_clock_of_the_database(
    either_app: Flask,
) -> None:
    client, database = either_app.test_client(), core_of(either_app).database
    with provided(ProgressBoard, either_app).upload(None, UPLOAD_ID, 100) as notes:
        notes.received(50)
        assert client.get(f"/uploads/{UPLOAD_ID}").json["state"] == "receiving"
        with database.write() as session:
            session.execute(update(UploadProgress).values(at_ms=UploadProgress.at_ms - 3_600_000, verdict="stored"))
        assert client.get(f"/uploads/{UPLOAD_ID}").json["state"] == "absent"
        assert client.delete(f"/uploads/{UPLOAD_ID}").status_code == 204, "it is not being stored"
        with provided(ProgressBoard, either_app).upload("somebody else", UPLOAD_ID, 100) as others:
            others.received(10)
            assert rows(database) == 1, "an upload that begins removes what is abandoned"
    assert rows(database) == 0


def test_an_upload_that_is_sent_again_after_an_interruption_is_a_new_one(either_app: Flask) -> None:
    client, board = either_app.test_client(), provided(ProgressBoard, either_app)
    with board.upload(None, UPLOAD_ID, 100) as interrupted, board.upload(None, UPLOAD_ID, 100) as notes:
        interrupted.read(1.0)  # and its process was killed before its data were stored
        notes.received(50)
        assert client.get(f"/uploads/{UPLOAD_ID}").json["fraction"] == 0.5
        assert client.delete(f"/uploads/{UPLOAD_ID}").status_code == 204
        with pytest.raises(Problem, match="cancelled by its sender"):
            notes.read(0.0)


def test_a_long_upload_is_written_once_a_second(either_app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_progress, "time", SimpleNamespace(monotonic=count(step=0.01).__next__))
    statements: list[str] = []
    event.listen(core_of(either_app).database.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    with provided(ProgressBoard, either_app).upload(None, UPLOAD_ID, 1_000) as notes:
        for _ in range(1_000):
            notes.received(1)  # for ten seconds
    assert 9 <= sum(text.startswith("INSERT INTO upload_progress") for text in statements) <= 11


def test_an_upload_is_cancelled_while_it_is_read(make_app: MakeApp, migrated_url: str) -> None:
    app = make_app(migrated_url)
    client, responses = app.test_client(), []
    release = threading.Event()
    release.set()
    headers = {"Upload-Id": UPLOAD_ID}
    sender = threading.Thread(
        target=lambda: responses.append(post(app.test_client(), large_table(), release, **headers))
    )
    sender.start()
    wait_until(lambda: client.get(f"/uploads/{UPLOAD_ID}").json["state"] == "reading", "the reading")
    assert client.delete(f"/uploads/{UPLOAD_ID}").status_code == 204
    sender.join()
    assert (responses[0].status_code, responses[0].json["code"]) == (409, "upload_cancelled")
    assert client.get("/datasets/large").status_code == 404
    assert client.get(f"/uploads/{UPLOAD_ID}").json["state"] == "absent"
    assert list((core_of(app).settings.artifacts / "datasets").glob("*")) == []
    assert client.delete(f"/uploads/{UPLOAD_ID}").status_code == 204, "it has ended"


def test_an_upload_that_was_read_is_too_late_to_cancel(either_app: Flask) -> None:
    client, board = either_app.test_client(), provided(ProgressBoard, either_app)
    with board.upload(None, UPLOAD_ID, 100) as notes:
        notes.read(0.0)
        notes.read(1.0)
        late = client.delete(f"/uploads/{UPLOAD_ID}")
        assert (late.status_code, late.json["code"]) == (409, "upload_stored")
        notes.read(1.0)
    with board.upload(None, UPLOAD_ID, 100) as notes:
        notes.read(0.0)
        assert client.delete(f"/uploads/{UPLOAD_ID}").status_code == 204
        assert client.delete(f"/uploads/{UPLOAD_ID}").status_code == 204
        with pytest.raises(Problem, match="cancelled by its sender"):
            notes.read(1.0)
