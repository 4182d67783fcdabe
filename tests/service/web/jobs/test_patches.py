"""Patching jobs: names, tags, priorities, stars and notes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.jobs import leases
from service.web.core.core import EXTENSION
from tests.service.web.conftest import pointers

Submit = Callable[..., str]


def test_a_patch_changes_only_the_fields_that_it_contains(either_app: Flask, submit: Submit) -> None:
    client = either_app.test_client()
    address = f"/jobs/{submit(client, name='old', tags=['a', 'b'], priority=3)}"
    answer = client.patch(address, json={"tags": ["c"], "priority": 9})
    assert (answer.status_code, answer.json["name"]) == (200, "old")
    assert (answer.json["tags"], answer.json["priority"]) == (["c"], 9)
    assert answer.headers["ETag"] == client.get(address).headers["ETag"]
    assert [job["id"] for job in client.get("/jobs?tag=c").json["data"]] == [answer.json["id"]]
    assert client.get("/jobs?tag=a").json["data"] == []
    cleared = client.patch(
        address, data='{"name": null, "tags": null, "priority": null}', content_type="application/merge-patch+json"
    )
    assert (cleared.json["name"], cleared.json["tags"], cleared.json["priority"]) == (None, [], 5)
    reasons = [event.get("reason") for event in client.get(f"{address}/events").json["data"]]
    assert reasons == ["submitted", "changed", "changed"]
    assert client.patch(address, json={}).status_code == 200
    assert len(client.get(f"{address}/events").json["data"]) == 3, "what changes nothing is no event"


def test_a_star_and_a_note_can_be_set_and_cleared(either_app: Flask, submit: Submit) -> None:
    client = either_app.test_client()
    address = f"/jobs/{submit(client)}"
    assert (client.get(address).json["starred"], client.get(address).json["note"]) == (False, None)
    note = "the one with the bug ✓\nsee seed 7"
    changed = client.patch(address, json={"starred": True, "note": note}).json
    assert (changed["starred"], changed["note"]) == (True, note)
    listed = client.get("/jobs").json["data"][0]
    assert (listed["starred"], listed["note"]) == (True, note)
    cleared = client.patch(address, json={"starred": False, "note": None}).json
    assert (cleared["starred"], cleared["note"]) == (False, None)
    log = client.get(f"{address}/events").text
    assert log.count('"changed"') == 2
    assert "the one with the bug" not in log, "a note that was deleted is nowhere"
    client.patch(address, json={"note": ""})
    client.patch(address, json={"starred": False})
    assert client.get(f"{address}/events").text == log, "what changes nothing is no event"


@pytest.mark.parametrize("note", ["x" * 2001, "a\0", "a\x1b[31m", "a\tb", "a\r\nb", 5])
def test_an_invalid_note_or_star_is_rejected(client: FlaskClient, submit: Submit, note: Any) -> None:
    assert pointers(client.patch(f"/jobs/{submit(client)}", json={"note": note})) == ["#/note"]
    assert pointers(client.patch(f"/jobs/{submit(client)}", json={"starred": "yes"})) == ["#/starred"]


def test_a_job_whose_priority_was_raised_is_claimed_first(either_app: Flask, submit: Submit) -> None:
    client = either_app.test_client()
    first, second = submit(client), submit(client)
    client.patch(f"/jobs/{second}", json={"priority": 9})
    claims = [leases.claim(either_app.extensions[EXTENSION].database, "w", 15) for _ in range(2)]
    assert [claim.job_id for claim in claims if claim] == [second, first]


@pytest.mark.parametrize(
    ("patch", "pointer"),
    [({"priority": 10}, "#/priority"), ({"status": "done"}, "#/status"), ({"tags": ["a,b"]}, "#/tags/0"), ([], "#")],
)
def test_an_invalid_patch_is_rejected_with_a_pointer(
    client: FlaskClient, submit: Submit, patch: Any, pointer: str
) -> None:
    assert pointers(client.patch(f"/jobs/{submit(client)}", json=patch)) == [pointer]


def test_a_client_that_saw_the_end_misses_no_later_change_and_does_not_wait(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    job_id = submit(client)
    worker.claim()
    worker.succeed()
    path = f"/jobs/{job_id}/stream"
    end = client.get(f"/jobs/{job_id}/events").json["next_after"]
    for name in ("kept", "kept for long"):
        client.patch(f"/jobs/{job_id}", json={"name": name})
    rest = client.get(path, headers={"Last-Event-ID": str(end)}).text
    events = [json.loads(line[6:]) for line in rest.splitlines() if line.startswith("data: ")][1:]  # after the snapshot
    assert [(event["type"], event["reason"], event["name"]) for event in events] == [
        ("status", "changed", "kept"),
        ("status", "changed", "kept for long"),
    ]
    assert client.get(path, headers={"Last-Event-ID": str(events[-1]["seq"])}).status_code == 204
