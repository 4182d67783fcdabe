from __future__ import annotations

from http.server import BaseHTTPRequestHandler

import pytest

from tapeline import ApiError, Event, Job, ServerUnreachable
from tests.tapeline.stub.server import SNAPSHOT, StubServer, event, hang_up, response, stream


def test_a_reconnected_stream_resumes_after_the_last_received_event(server: StubServer, job: Job) -> None:
    server.responses = [
        stream(SNAPSHOT, event("metrics", 1, epoch=1), event("metrics", 2, epoch=2), "id: 3\nevent: metr"),
        hang_up,
        stream(SNAPSHOT, event("metrics", 2, epoch=2), ": ping\n\n", event("progress", step=9)),
        stream(SNAPSHOT, event("metrics", 3, epoch=3), event("end", 4, status="succeeded")),
    ]
    events = list(job.events())
    assert [event.seq for event in events if event.seq is not None] == [1, 2, 3, 4]
    assert events[-1] == Event("end", {"status": "succeeded"}, 4)
    assert [headers.get("Last-Event-ID") for _, _, headers, _ in server.requests] == [None, "2", "2", "2"]


def test_a_stream_ends_when_the_job_has_ended_and_no_event_is_missing(server: StubServer, job: Job) -> None:
    def no_content(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(204)
        handler.end_headers()

    server.responses = [no_content]
    assert list(job.events(after=9)) == []


def test_a_client_that_saw_the_end_gets_the_changes_after_it_and_then_stops(server: StubServer, job: Job) -> None:
    def no_content(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(204)
        handler.end_headers()

    server.responses = [stream(SNAPSHOT, event("status", 10, reason="changed")), no_content]
    events = list(job.events(after=9))
    assert [event.seq for event in events] == [None, 10]
    assert [headers.get("Last-Event-ID") for _, _, headers, _ in server.requests] == ["9", "10"]


def test_a_stream_gives_up_when_the_service_stays_unreachable(server: StubServer, job: Job) -> None:
    server.responses = [stream(SNAPSHOT), hang_up, hang_up, hang_up]
    with pytest.raises(ServerUnreachable):
        list(job.events(outage_timeout_s=0.3))


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_stream_resumes_after_a_proxy_has_answered_that_the_service_is_away(
    server: StubServer, job: Job, status: int
) -> None:
    server.responses = [
        stream(SNAPSHOT, event("metrics", 1, epoch=1)),
        response({"code": "unavailable", "detail": "no service behind this proxy"}, status),
        stream(SNAPSHOT, event("end", 2, status="succeeded")),
    ]
    events = list(job.events())
    assert [event.seq for event in events if event.seq is not None] == [1, 2]


def test_a_stream_of_an_unknown_job_fails_at_once(server: StubServer, job: Job) -> None:
    server.responses = [response({"code": "job_not_found", "detail": "there is no such job"}, 404)]
    with pytest.raises(ApiError, match="no such job"):
        list(job.events())
