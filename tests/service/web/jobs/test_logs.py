"""A job's log: filters by type, level and text, pagination, and download."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.jobs import commits
from service.schema.findings import Finding
from service.states import FindingCode, Severity
from tests.service.web.markup import one_line

BROWSER = {"Accept": "text/html,*/*;q=0.8"}


@pytest.fixture
def client(either_app: Flask) -> FlaskClient:
    return either_app.test_client()


@pytest.fixture
def job_id(either_app: Flask, client: FlaskClient, submit: Callable[..., str], make_worker: Any) -> str:
    """A job that completed three epochs, got a warning, and failed."""
    failed_id = submit(client, name="reader", epochs=5)
    worker = make_worker(either_app)
    worker.claim()
    worker.commit_epoch(1)
    finding = Finding(
        code=FindingCode.OVERFITTING, severity=Severity.WARNING, epoch=2, message="the gap grows", numbers={}, advice=[]
    )
    worker.commit_epoch(2, health=[finding])
    commits.log(
        either_app.extensions["tapeline"].database, worker.current_claim, "error", "strange", "Zürich, 100% <b>"
    )
    worker.commit_epoch(3)
    worker.fail("internal")
    return failed_id


def event_types(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [event["type"] for event in answer.json["data"]]


FILTERS = {
    "type=metrics": ["metrics"] * 3,
    "type=sample,checkpoint": ["sample", "checkpoint"] * 3,
    "level=warning": ["health", "log", "status", "end"],
    "level=error": ["log", "status", "end"],
    "level=error&type=log": ["log"],
    "q=OVERFIT": ["metrics", "health", "health"],
    "q=z%C3%BCrich": ["log"],
    "q=100%25": ["log"],
    "q=nothing-like-that": [],
}
"""The types of the events that each query selects."""


def test_queries_filter_a_log(client: FlaskClient, job_id: str, subtests: pytest.Subtests) -> None:
    everything = event_types(client.get(f"/jobs/{job_id}/events"))
    for query, expected in (FILTERS | {"type=&q=&level=&before=": everything}).items():
        with subtests.test(query):
            assert sorted(event_types(client.get(f"/jobs/{job_id}/events?{query}"))) == sorted(expected)


def test_an_invalid_log_query_is_rejected(client: FlaskClient, job_id: str, subtests: pytest.Subtests) -> None:
    for query in ("type=colour", "level=loud", "before=x", "format=xml"):
        with subtests.test(query):
            assert client.get(f"/jobs/{job_id}/events?{query}").json["code"] == "invalid_parameter"


def test_a_log_can_be_downloaded_as_json_lines(
    client: FlaskClient, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.web.jobs.results._BATCH_SIZE", 3)
    answer = client.get(f"/jobs/{job_id}/events?format=jsonl", headers=BROWSER)
    assert answer.mimetype == "application/x-ndjson"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines == client.get(f"/jobs/{job_id}/events?limit=1000").json["data"]
    errors = client.get(f"/jobs/{job_id}/events?format=jsonl&level=error").text.splitlines()
    assert len(errors) == 3


def test_the_page_shows_the_end_of_a_log_and_links_to_older_events(client: FlaskClient, job_id: str) -> None:
    total = len(client.get(f"/jobs/{job_id}/events").json["data"])
    page = client.get(f"/ui/jobs/{job_id}/log?limit=4").text
    shown = [int(seq) for seq in re.findall(r'data-seq="(\d+)"', page)]
    assert shown == list(range(total - 3, total + 1))
    older = re.search(r'href="(\?[^"]*before=[^"]*)"', page)
    assert older is not None
    address = older[1].replace("&amp;", "&")
    page = client.get(f"/ui/jobs/{job_id}/log{address}&limit=4").text
    assert [int(seq) for seq in re.findall(r'data-seq="(\d+)"', page)] == list(range(total - 7, total - 3))


def test_the_page_marks_levels_and_escapes_messages(client: FlaskClient, job_id: str) -> None:
    page = one_line(client.get(f"/ui/jobs/{job_id}/log?level=warning").text)
    assert len(re.findall(r'<li class="error"', page)) == 3
    assert len(re.findall(r'<li class="warning"', page)) == 1
    assert "Zürich, 100% &lt;b&gt;" in page
    assert re.search(r'<a class="button slim" href="\?level=warning" aria-current="true">Warnings and errors</a>', page)
    assert f'href="/jobs/{job_id}/events?level=warning&amp;format=jsonl"' in page
