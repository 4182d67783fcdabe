from __future__ import annotations

import base64
import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sqlalchemy import insert, select

from service.pictures import grids
from service.pictures.grids import SampleClasses
from service.storage.tables import Artifact
from service.web.core.core import EXTENSION
from service.web.jobs import plots
from tapeline import Client
from tests.service.web.markup import one_line

Submit = Callable[..., str]
Serve = Callable[[Flask], str]

DATA = bytes(range(256)) * 400  # 102,400 bytes
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def address(client: FlaskClient, worker: Any, submit: Submit) -> Iterator[str]:
    """The URL path of a job with three completed epochs; its last checkpoint has known bytes."""
    job_id = submit(client)
    worker.claim()
    for epoch in (1, 2, 3):
        matrix = [[10 * (row == column) + epoch for column in range(10)] for row in range(10)]
        worker.commit_epoch(epoch, best=epoch == 2, confusion=matrix, checkpoint=DATA if epoch == 3 else None)
    return f"/jobs/{job_id}"


def fetch(client: FlaskClient, path: str, method: str = "GET", **headers: str) -> tuple[int, Any, bytes]:
    with client.open(path, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()}) as answer:
        return answer.status_code, answer.headers, answer.data


def test_a_checkpoint_download_has_headers_to_verify_it(client: FlaskClient, address: str) -> None:
    status, headers, data = fetch(client, f"{address}/checkpoints/latest")
    assert (status, data) == (200, DATA)
    assert headers["Content-Length"] == str(len(DATA))
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["ETag"] == f'"{DIGEST}"'
    assert headers["Accept-Ranges"] == "bytes"
    digest = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
    assert headers["Repr-Digest"] == f"sha-256=:{digest}:"
    name = f"{address.rpartition('/')[2]}-epoch-0003.safetensors"
    assert headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "no-cache" in headers["Cache-Control"]
    assert "immutable" in fetch(client, f"{address}/checkpoints/3")[1]["Cache-Control"]


def test_checkpoints_are_addressed_as_best_or_latest_or_by_epoch(client: FlaskClient, address: str) -> None:
    listed = {item["epoch"]: item for item in client.get(f"{address}/checkpoints").json["data"]}
    for which, epoch in (("best", 2), ("latest", 3), ("1", 1), ("0002", 2)):
        _, headers, data = fetch(client, f"{address}/checkpoints/{which}")
        assert headers["ETag"].strip('"') == listed[epoch]["sha256"] == hashlib.sha256(data).hexdigest()
    assert [item["epoch"] for item in listed.values() if item["best"]] == [2]
    assert [item["epoch"] for item in listed.values() if item["latest"]] == [3]


def test_head_returns_the_headers_without_a_body(client: FlaskClient, address: str) -> None:
    status, headers, data = fetch(client, f"{address}/checkpoints/latest", "HEAD")
    whole = fetch(client, f"{address}/checkpoints/latest")[1]
    assert (status, data) == (200, b"")
    for name in ("Content-Length", "ETag", "Repr-Digest", "Accept-Ranges", "Content-Type", "Content-Disposition"):
        assert headers[name] == whole[name]


@pytest.mark.parametrize(
    ("byte_range", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-1023", 0, 1024),
        ("bytes=100000-", 100_000, 102_400),
        ("bytes=102399-", 102_399, 102_400),
        ("bytes=-1", 102_399, 102_400),
        ("bytes=100-999999999", 100, 102_400),
        ("Bytes=5-9", 5, 10),
        ("bytes=0-", 0, 102_400),
        ("bytes=-999999999", 0, 102_400),
    ],
)
def test_a_byte_range_of_a_file_can_be_downloaded(
    client: FlaskClient, address: str, byte_range: str, start: int, stop: int
) -> None:
    status, headers, data = fetch(client, f"{address}/checkpoints/latest", Range=byte_range)
    assert (status, data) == (206, DATA[start:stop])
    assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/102400"
    assert headers["Content-Length"] == str(stop - start)
    assert headers["ETag"] == f'"{DIGEST}"'


@pytest.mark.parametrize(
    "byte_range",
    ["bytes=", "bytes=-", "bytes=5-2", "items=0-1", "bytes=0-1,5-6", "bytes=a-b", "x", "bytes=-0"],
)
def test_a_malformed_or_unsupported_range_is_ignored(client: FlaskClient, address: str, byte_range: str) -> None:
    status, _, data = fetch(client, f"{address}/checkpoints/latest", Range=byte_range)
    assert (status, data) == (200, DATA)


@pytest.mark.parametrize("byte_range", ["bytes=102400-", "bytes=999999-", f"bytes={'9' * 100}-"])
def test_a_range_beyond_the_end_is_not_satisfiable(client: FlaskClient, address: str, byte_range: str) -> None:
    status, headers, data = fetch(client, f"{address}/checkpoints/latest", Range=byte_range)
    assert (status, headers["Content-Range"]) == (416, "bytes */102400")
    assert b"range_not_satisfiable" in data


def test_a_range_request_gets_the_whole_file_if_if_range_does_not_match(client: FlaskClient, address: str) -> None:
    path = f"{address}/checkpoints/latest"
    assert fetch(client, path, Range="bytes=0-9", If_Range=f'"{DIGEST}"')[0] == 206
    for condition in ('"other"', f'W/"{DIGEST}"', "Wed, 21 Oct 2015 07:28:00 GMT"):
        status, _, data = fetch(client, path, Range="bytes=0-9", If_Range=condition)
        assert (status, data) == (200, DATA)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, len(DATA) - 1), max_size=5, unique=True))
def test_a_download_in_arbitrary_ranges_equals_the_file(client: FlaskClient, address: str, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(DATA)]
    parts = [
        fetch(client, f"{address}/checkpoints/3", Range=f"bytes={low}-{high - 1}", If_Range=f'"{DIGEST}"')[2]
        for low, high in itertools.pairwise(edges)
    ]
    assert b"".join(parts) == DATA


def test_every_artifact_can_be_downloaded_by_its_id(client: FlaskClient, address: str) -> None:
    items = client.get(f"{address}/artifacts").json["data"]
    assert len(items) == 6
    for item in items:
        status, headers, data = fetch(client, item["url"])
        assert status == 200
        assert hashlib.sha256(data).hexdigest() == item["sha256"] == headers["ETag"].strip('"')
        assert len(data) == item["size_bytes"]
        assert headers["Content-Type"] == item["media_type"]


def test_artifacts_and_results_are_paginated(either_app: Flask, make_worker: Any, submit: Submit) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    other_id, job_id = submit(client, priority=9), submit(client)
    for _ in (other_id, job_id):
        worker.claim()
        for epoch in (1, 2, 3):
            worker.commit_epoch(epoch)
    whole = client.get(f"/jobs/{job_id}/artifacts").json
    assert (len(whole["data"]), whole["has_more"], whole["next_cursor"]) == (6, False, None)
    for name, field in (("artifacts", "data"), ("results", "artifacts")):
        items, address = [], f"/jobs/{job_id}/{name}?limit=4"
        for size, has_more in ((4, True), (2, False)):
            answer = client.get(address)
            assert (len(answer.json[field]), answer.json["has_more"]) == (size, has_more)
            items += answer.json[field]
            address = f"/jobs/{job_id}/{name}?limit=4&cursor={answer.json['next_cursor']}"
        assert items == whole["data"]
        assert answer.json.get("artifact_count") in (None, 6)
    first = client.get(f"/jobs/{job_id}/artifacts?limit=4")
    assert client.get(first.headers["Link"].partition(">")[0].strip("<")).json["data"] == whole["data"][4:]


@pytest.mark.parametrize("which", ["checkpoints", "samples"])
def test_checkpoints_and_samples_are_paginated_too(client: FlaskClient, address: str, which: str) -> None:
    whole = client.get(f"{address}/{which}").json
    assert ([item["epoch"] for item in whole["data"]], whole["has_more"]) == ([1, 2, 3], False)
    first = client.get(f"{address}/{which}?limit=2")
    assert (first.json["data"], first.json["has_more"]) == (whole["data"][:2], True)
    link = first.headers["Link"].partition(">")[0].strip("<")
    assert f"cursor={first.json['next_cursor']}" in link
    last = client.get(link)
    assert (last.json["data"], last.json["next_cursor"]) == (whole["data"][2:], None)
    assert "Link" not in last.headers
    assert first.json.get("films") == last.json.get("films")
    assert client.get(f"{address}/{which}?cursor=x").json["code"] == "invalid_cursor"


def test_the_page_size_of_results_affects_only_the_list_of_files(client: FlaskClient, address: str) -> None:
    whole = client.get(f"{address}/results").json
    page = client.get(f"{address}/results?limit=1").json
    differing = {name for name in whole if whole[name] != page[name]}
    assert differing == {"artifacts", "has_more", "next_cursor"}


@pytest.mark.parametrize("position", [["film", 1], ["sample", "1"], ["sample", True], ["sample", 2**31], ["sample"], 5])
def test_an_invalid_cursor_for_files_is_rejected(client: FlaskClient, address: str, position: Any) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")
    for name in ("artifacts", "results"):
        answer = client.get(f"{address}/{name}?cursor={cursor}")
        assert (answer.status_code, answer.json["code"]) == (400, "invalid_cursor")


def test_the_page_of_a_job_lists_its_files(client: FlaskClient, address: str) -> None:
    page = client.get(f"/ui{address}").text
    files = client.get(f"{address}/artifacts").json["data"]
    assert "6 files" in page
    assert len(files) == 6
    for file in files:
        assert file["sha256"] in page
        assert f'href="{file["url"]}"' in page or file["kind"] == "checkpoint"
    for checkpoint in client.get(f"{address}/checkpoints").json["data"]:
        assert f'href="{checkpoint["url"]}"' in page


def test_the_client_lists_every_file_of_a_job_with_thousands(app: Flask, address: str, serve: Serve) -> None:
    job_id = address.rpartition("/")[2]
    with app.extensions[EXTENSION].database.write() as session:
        for kind in ("sample", "checkpoint"):
            row = session.scalars(select(Artifact).where(Artifact.kind == kind)).first()
            same = {column.key: getattr(row, column.key) for column in Artifact.__table__.columns}
            many = [{"id": f"art_{kind}{at}", "epoch": at, "name": f"{at}.{kind[0]}ng"} for at in range(10, 2010)]
            session.execute(insert(Artifact), [same | item for item in many])
    with Client(serve(app)) as client:
        names = [name for name, _ in client.job(job_id).files()]
        assert [item["epoch"] for item in client.job(job_id).checkpoints()] == [1, 2, 3, *range(10, 2010)]
    assert len(set(names)) == len(names)
    assert {f"{at}.sng" for at in range(10, 2010)} <= set(names)


def test_the_grid_of_a_classifier_is_drawn_when_it_is_shown(
    client: FlaskClient,
    worker: Any,
    submit: Submit,
    serve: Serve,
    app: Flask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8)).astype(np.uint8)
    stored = grids.prediction_grid(images, [0, 1, 2, 3], [0, 1, 2, 4], [0.9] * 4)
    job_id = submit(client)
    worker.claim()
    worker.commit_epoch(1, sample=stored, confusion=[[1, 0], [0, 1]])
    path = f"/jobs/{job_id}/samples"
    (item,) = client.get(path).json["data"]
    assert fetch(client, f"/jobs/{job_id}/artifacts/{item['id']}")[2] == stored
    assert item["sha256"] == hashlib.sha256(stored).hexdigest()
    status, headers, shown = fetch(client, f"{path}/1.png")
    assert (status, shown) == (200, grids.as_shown(stored))
    assert len(shown) > len(stored)
    assert headers["Content-Type"] == "image/png"
    assert headers["Content-Length"] == str(len(shown))
    assert headers["Repr-Digest"] == f"sha-256=:{base64.b64encode(hashlib.sha256(shown).digest()).decode()}:"
    assert "immutable" in headers["Cache-Control"]
    with monkeypatch.context() as patch:  # what was shown is not drawn again
        patch.setattr(grids, "_draw_predictions", pytest.fail)
        assert fetch(client, f"{path}/1.png", If_None_Match=headers["ETag"])[0] == 304
    assert fetch(client, f"{path}/latest.png", Range="bytes=1-3")[::2] == (206, shown[1:4])
    with Image.open(BytesIO(fetch(client, f"{path}.webp")[2])) as film, Image.open(BytesIO(shown)) as grid:
        assert film.width == grid.width
    with Client(serve(app)) as user:
        files = {file.name: file.read_bytes() for file in user.job(job_id).download(tmp_path / "files")}
    assert files[item["name"]] == shown


def test_an_artifact_of_another_job_is_not_found(client: FlaskClient, address: str, submit: Submit) -> None:
    item = client.get(f"{address}/artifacts").json["data"][0]
    assert fetch(client, f"/jobs/{submit(client)}/artifacts/{item['id']}")[0] == 404


def test_a_missing_or_truncated_file_is_a_problem_not_a_short_response(
    client: FlaskClient, worker: Any, address: str
) -> None:
    path = next((worker.artifacts.root / address.rpartition("/")[2] / "checkpoint").glob("000003*"))
    path.write_bytes(DATA[:-1])
    status, _, data = fetch(client, f"{address}/checkpoints/latest")
    assert status == 500
    assert b"artifact_damaged" in data
    assert str(worker.artifacts.root).encode() not in data
    path.unlink()
    assert fetch(client, f"{address}/checkpoints/latest")[0] == 500
    assert fetch(client, f"{address}/checkpoints/best")[0] == 200


def test_a_file_of_other_bytes_is_a_problem(client: FlaskClient, worker: Any, address: str) -> None:
    path = next((worker.artifacts.root / address.rpartition("/")[2] / "checkpoint").glob("000003*"))
    path.write_bytes(bytes(byte ^ 1 for byte in DATA))
    status, _, data = fetch(client, f"{address}/checkpoints/latest")
    assert status == 500
    assert b"artifact_damaged" in data


def test_a_symlink_in_place_of_a_file_is_not_followed(client: FlaskClient, worker: Any, address: str) -> None:
    path = next((worker.artifacts.root / address.rpartition("/")[2] / "checkpoint").glob("000003*"))
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)
    assert fetch(client, f"{address}/checkpoints/latest")[0] == 500


def test_the_latest_checkpoint_can_be_downloaded_while_older_ones_are_deleted(
    client: FlaskClient, worker: Any, address: str
) -> None:
    finished = threading.Event()

    def train() -> None:
        for epoch in range(4, 40):
            worker.commit_epoch(epoch, best=False, keep_last=1)
        finished.set()

    thread = threading.Thread(target=train)
    thread.start()
    while not finished.is_set():
        status, headers, data = fetch(client, f"{address}/checkpoints/latest")
        assert status == 200
        assert hashlib.sha256(data).hexdigest() == headers["ETag"].strip('"')
    thread.join()


def test_a_sample_is_a_png_that_is_shown_inline(client: FlaskClient, address: str) -> None:
    listed = client.get(f"{address}/samples").json
    assert [item["epoch"] for item in listed["data"]] == [1, 2, 3]
    status, headers, data = fetch(client, listed["data"][1]["url"])
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert "Content-Disposition" not in headers
    Image.open(BytesIO(data)).verify()
    assert hashlib.sha256(data).hexdigest() == listed["data"][1]["sha256"]


@pytest.mark.parametrize(("suffix", "kind"), [("gif", "GIF"), ("webp", "WEBP")])
def test_a_film_has_a_frame_for_every_sample(client: FlaskClient, address: str, suffix: str, kind: str) -> None:
    status, headers, data = fetch(client, f"{address}/samples.{suffix}")
    assert (status, headers["Content-Type"]) == (200, f"image/{suffix}")
    with Image.open(BytesIO(data)) as film:
        assert (film.format, film.n_frames) == (kind, 3)
    assert fetch(client, f"{address}/samples.{suffix}", If_None_Match=headers["ETag"])[0] == 304


@pytest.mark.parametrize("which", ["curves", "confusion"])
def test_plots_are_drawn_as_png_and_svg(client: FlaskClient, address: str, which: str) -> None:
    status, headers, data = fetch(client, f"{address}/plots/{which}.png")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    Image.open(BytesIO(data)).verify()
    status, headers, data = fetch(client, f"{address}/plots/{which}.svg")
    assert (status, headers["Content-Type"]) == (200, "image/svg+xml")
    assert b"<svg" in data
    assert "sandbox" in headers["Content-Security-Policy"]
    assert "script-src" not in headers["Content-Security-Policy"]


def test_a_film_is_rendered_once_per_epoch(
    client: FlaskClient, worker: Any, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderings = []
    real = plots.animations.animate
    monkeypatch.setattr(
        plots.animations, "animate", lambda *args, **options: renderings.append(1) or real(*args, **options)
    )
    with ThreadPoolExecutor(4) as pool:
        films = set(pool.map(lambda _: fetch(client, f"{address}/samples.gif")[2], range(4)))
    assert (len(films), len(renderings)) == (1, 1)
    worker.commit_epoch(4)
    assert fetch(client, f"{address}/samples.gif")[2] not in films
    assert len(renderings) == 2
    cached = sorted((worker.artifacts.root / address.rpartition("/")[2] / "derived").iterdir())
    assert [path.name for path in cached] == ["samples.gif"]


def test_a_film_that_cannot_be_cached_is_still_sent(client: FlaskClient, worker: Any, address: str) -> None:
    (worker.artifacts.root / address.rpartition("/")[2] / "derived").write_text("in the way")
    assert fetch(client, f"{address}/samples.gif")[0] == 200


def test_samples_are_labelled_with_their_predicted_classes_on_request(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    job_id = submit(client, kind="gan")
    worker.claim()
    worker.commit_epoch(1, sample_classes=SampleClasses([7, 1, 1, 3], [0.9, 0.8, 0.99, 0.3]))
    worker.commit_epoch(2)
    address = f"/jobs/{job_id}/samples"
    _, _, plain = fetch(client, f"{address}/1.png")
    status, headers, labelled = fetch(client, f"{address}/1.png?predicted_labels=true")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    with Image.open(BytesIO(plain)) as plain_image, Image.open(BytesIO(labelled)) as labelled_image:
        assert labelled_image.height > plain_image.height
    assert fetch(client, f"{address}/1.png?predicted_labels=true", If_None_Match=headers["ETag"])[0] == 304
    assert fetch(client, f"{address}/1.png?verdicts=true")[2] == labelled  # the former name, until 0.3
    assert fetch(client, f"{address}/1.png?predicted_labels=false")[2] == plain
    answer = client.get(f"{address}/latest.png?predicted_labels=true")
    assert (answer.status_code, answer.json["code"]) == (404, "no_verdicts")
    assert "epoch 2" in answer.json["detail"]
    assert client.get(f"{address}/3.png?predicted_labels=true").json["code"] == "artifact_not_found"
    assert client.get(f"{address}/1.png?predicted_labels=perhaps").json["code"] == "invalid_parameter"
    assert "Predicted classes" in one_line(client.get(f"/ui/jobs/{job_id}").text)


def test_predicted_labels_change_nothing_in_a_classifiers_samples(client: FlaskClient, address: str) -> None:
    assert (
        fetch(client, f"{address}/samples/1.png?predicted_labels=true")[2]
        == fetch(client, f"{address}/samples/1.png")[2]
    )
