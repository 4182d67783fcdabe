"""The proxy that records a service: what it passes on, and what it writes."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.tapeline.stub import recorder as recorder_module
from tests.tapeline.stub.recorder import Recorder
from tests.tapeline.stub.recordings import Recording
from tests.tapeline.stub.server import StubServer, event, response, stream

JOBS = ("job_01M8KZV07D27J7HWZDTHA87PXN", "job_01M8KZV07D27J7HWZDTHA87PXP")
JSON = {"Content_Type": "application/json"}


@pytest.fixture(autouse=True)
def _no_earlier_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "load", lambda name: Recording({}, {}))


def record(server: StubServer, folder: Path, *requests: tuple[str, str]) -> list[dict[str, Any]]:
    """Send requests through a recorder; return the recorded exchanges."""
    with closing(Recorder(server.url)) as recorder:
        with recorder.scene("file", "a test") as url, httpx.Client(base_url=url) as http:
            for method, path in requests:
                http.request(method, path).read()
        recorder.save(folder, is_whole=True)
    document = json.loads((folder / "file.json").read_text())
    return [document["exchanges"][key] for key in document["scenes"]["a test"]]


def test_ids_times_durations_and_servers_are_replaced_by_the_same_in_each_recording(
    server: StubServer, tmp_path: Path
) -> None:
    documents = [
        {
            "id": job_id,
            "created_at": f"2026-11-29T15:0{number}:00.123Z",
            "cpu_seconds": 0.1 * number,
            "url": f"{server.url}/jobs",
            "loss": 0.25,
        }
        for number, job_id in enumerate(JOBS)
    ]
    server.responses = [response(item, **JSON) for item in documents]
    paths = [("POST", "/jobs"), ("GET", f"/jobs?q={JOBS[0][-6:].lower()}")]
    first, second = record(server, tmp_path, *paths)
    assert first["response"]["json"] == {
        "id": first["response"]["json"]["id"],
        "created_at": "2026-01-01T00:00:00.000Z",
        "cpu_seconds": 0.5,
        "url": "{server}/jobs",
        "loss": 0.25,
    }
    recorded = [item["response"]["json"]["id"] for item in (first, second)]
    assert recorded == sorted(recorded)
    assert not set(recorded) & set(JOBS)
    assert second["request"]["path"] == f"/jobs?q={recorded[0][-6:].lower()}"
    server.responses = [response(item, **JSON) for item in documents]
    again = record(server, tmp_path, *paths)
    assert again == [first, second]


def test_how_often_a_state_is_polled_is_not_recorded(server: StubServer, tmp_path: Path) -> None:
    server.responses = [response({"status": status}, **JSON) for status in ("queued", "running", "succeeded")]
    exchanges = record(server, tmp_path, *[("GET", "/jobs/1")] * 3)
    assert [item["response"]["json"]["status"] for item in exchanges] == ["succeeded"]


def test_a_stream_is_recorded_without_progress_and_a_large_file_in_part(server: StubServer, tmp_path: Path) -> None:
    server.responses = [
        stream(": ping\n\n", event("metrics", 1, seconds=7), event("progress", step=1), event("end", 2)),
        response(bytes(10_000), Content_Type="application/octet-stream"),
    ]
    events, file = record(server, tmp_path, ("GET", "/jobs/1/stream"), ("GET", "/file"))
    assert events["response"]["text"] == event("metrics", 1, seconds=0.5) + event("end", 2)
    assert len(file["response"]["base64"]) < 5000
    assert file["response"]["headers"]["Repr-Digest"].startswith("sha-256=:")
