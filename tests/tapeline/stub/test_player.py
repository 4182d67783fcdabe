"""The server that plays recordings: what it responds, and when it fails a test."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import httpx
import pytest

from tapeline import ApiError, Client
from tests.tapeline.stub.player import Player, Scene
from tests.tapeline.stub.recordings import COMMAND, SERVER, body_of, describe_request

BOUNDARY = "multipart/form-data; boundary=x"


def exchange(method: str, path: str, answer: Any, **body: Any) -> dict[str, Any]:
    response = {"status": 200, "headers": {"Content-Type": "application/json"}, "json": answer}
    return {"request": {"method": method, "path": path, **body}, "response": response}


def test_a_request_without_a_recording_fails_the_test_and_names_the_remedy() -> None:
    with (
        closing(Player()) as player,
        pytest.raises(AssertionError, match=f'(?s)not recorded in .*{COMMAND}.*"POST", "path": "/jobs"'),
        player.scene("no-such-file", "a test") as url,
        Client(url) as client,
        pytest.raises(ApiError, match="there is no recording of POST /jobs"),
    ):
        client.submit({"kind": "gan"})


def test_a_recorded_write_that_is_not_requested_fails_the_test() -> None:
    scene = Scene("a scene", [exchange("GET", "/jobs/1", {}), exchange("POST", "/jobs/1/cancel", {})])
    assert scene.next_response({"method": "GET", "path": "/jobs/1"})
    with pytest.raises(AssertionError, match=r"not requested.*cancel"):
        scene.check()
    assert scene.next_response({"method": "POST", "path": "/jobs/1/cancel"})
    scene.check()


def test_a_state_after_a_write_is_not_played_before_it_however_often_it_is_polled() -> None:
    states = [exchange("GET", "/jobs/1", {"status": status}) for status in ("queued", "running", "cancelled")]
    scene = Scene("a scene", [*states[:2], exchange("POST", "/jobs/1/cancel", {}), states[2]])
    poll = {"method": "GET", "path": "/jobs/1"}

    def statuses(count: int) -> list[str]:
        return [(scene.next_response(poll) or {})["json"]["status"] for _ in range(count)]

    assert statuses(3) == ["queued", "running", "running"]
    scene.next_response({"method": "POST", "path": "/jobs/1/cancel"})
    assert statuses(2) == ["cancelled", "cancelled"]


def test_polling_for_a_state_whose_write_is_missing_ends_with_an_error() -> None:
    states = [exchange("GET", "/jobs/1", {"status": status}) for status in ("running", "cancelled")]
    scene = Scene("a scene", [states[0], exchange("POST", "/jobs/1/cancel", {}), states[1]])
    responses = [scene.next_response({"method": "GET", "path": "/jobs/1"}) for _ in range(30)]
    assert responses[1]
    assert responses[-1] is None
    with pytest.raises(AssertionError, match=r"polled in vain: .*/jobs/1.*cancel"):
        scene.check()


def test_a_write_with_another_body_or_once_more_is_not_recorded() -> None:
    scene = Scene("a scene", [exchange("PATCH", "/jobs/1", {}, json={"name": "a"})])
    assert scene.next_response({"method": "PATCH", "path": "/jobs/1", "json": {"title": "a"}}) is None
    assert scene.next_response({"method": "PATCH", "path": "/jobs/1", "json": {"name": "a"}})
    assert scene.next_response({"method": "PATCH", "path": "/jobs/1", "json": {"name": "a"}}) is None
    with pytest.raises(AssertionError, match="title"):
        scene.check()


def test_requests_are_recognised_by_their_fields_and_not_by_their_encoding() -> None:
    server = "http://127.0.0.1:1"
    bodies = [b'{"a": 1, "b": "http://127.0.0.1:1/x"}', b'{"b":"http://127.0.0.1:1/x","a":1}']
    described = [describe_request("POST", "/jobs", "application/json", body, server) for body in bodies]
    assert described[0] == described[1]
    assert described[0]["json"] == {"a": 1, "b": f"{SERVER}/x"}
    image = describe_request("POST", "/jobs", "", json.dumps({"images": ["A" * 5000]}).encode(), server)
    assert image["json"]["images"][0].startswith("sha256:")
    assert describe_request("POST", "/jobs", "", b'{"epochs": NaN}', server)["text"] == '{"epochs": NaN}'


def test_a_table_counts_with_its_content_and_an_archive_with_its_name() -> None:
    def form(field: str, content: bytes) -> Any:
        request = httpx.Request("POST", "http://x", data={"name": "mine"}, files={field: ("a.csv", content)})
        body = request.read()
        return describe_request("POST", "/datasets", request.headers["Content-Type"], body, "http://x")["form"]

    assert form("table", b"a\n1\n")["name"] == "mine"
    assert form("table", b"a\n1\n") == form("table", b"a\n1\n") != form("table", b"a\n2\n")
    assert form("archive", b"1") == form("archive", b"2") == {"name": "mine", "archive": "a.csv"}


def test_a_response_names_the_server_that_plays_it() -> None:
    assert body_of({"json": {"url": f"{SERVER}/jobs"}}, "http://here") == b'{"url": "http://here/jobs"}'
    assert body_of({"base64": "AAE="}, "http://here") == b"\0\1"
