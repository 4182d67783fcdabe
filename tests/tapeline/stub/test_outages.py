"""What watching a job or sweep reports while the service does not respond."""

from __future__ import annotations

import re
from typing import Any

import pytest
from click.testing import CliRunner

from service.cli import main
from tapeline import streams
from tests.tapeline.stub.recordings import load
from tests.tapeline.stub.server import JOB, StubServer, event, hang_up, response, stream
from tests.terminals import run_in_terminal, strip_ansi

LOST, RESTORED = "connection lost, reconnecting ...", "connection restored"
LONG_OUTAGE = 6
"""Attempts to connect again within two seconds."""


STATE: dict[str, Any] = {
    "id": JOB,
    "name": None,
    "kind": "classifier",
    "status": "running",
    "requested": None,
    "metrics": {},
    "error": None,
    "progress": {"epoch": 0, "epochs": 2, "fraction": 0.0},
}
SNAPSHOT = event("snapshot", **STATE)
END = event("end", 3, status="succeeded", result_digest="sha256:1")


def metrics(epoch: int) -> str:
    return event("metrics", epoch, epoch=epoch, values={"train_loss": 1.0})


@pytest.mark.parametrize(("reported_after_s", "messages"), [(0.0, [LOST, RESTORED]), (2.0, [])])
def test_an_outage_and_its_end_are_reported_once_if_it_lasts_seconds(
    server: StubServer, monkeypatch: pytest.MonkeyPatch, reported_after_s: float, messages: list[str]
) -> None:
    assert streams._MIN_REPORTED_OUTAGE_S == 2.0
    monkeypatch.setattr(streams, "_MIN_REPORTED_OUTAGE_S", reported_after_s)
    attempts = 2
    server.responses = [
        response(STATE),
        stream(SNAPSHOT, metrics(1)),
        *[hang_up] * attempts,
        stream(SNAPSHOT, metrics(1), metrics(2), END),
        *[response(STATE | {"status": "succeeded"})] * 3,
    ]
    result = CliRunner().invoke(main, ["--server", server.url, "watch", JOB])
    assert result.stderr.splitlines() == messages, result.output
    epochs = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("epoch")]
    assert epochs == ["1/2", "2/2"], "nothing is lost or repeated"
    assert [headers.get("Last-Event-ID") for _, path, headers, _ in server.requests if path.endswith("stream")] == [
        None,
        *["1"] * (attempts + 1),
    ]


@pytest.mark.stack
def test_a_terminal_shows_an_outage_until_the_connection_is_restored(server: StubServer) -> None:
    server.responses = [
        response(STATE),
        stream(SNAPSHOT, metrics(1)),
        *[hang_up] * LONG_OUTAGE,
        stream(SNAPSHOT, metrics(2), END),
        *[response(STATE | {"status": "succeeded"})] * 3,
    ]
    environ = {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    _, output = run_in_terminal("watch", JOB, "--server", server.url, environ=environ)
    before, restored, after = strip_ansi(output).partition(f"{RESTORED}\n")
    assert LOST in before
    assert restored
    assert not any(text in after for text in (LOST, RESTORED))


def test_watching_a_sweep_reports_an_outage_too(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_MIN_REPORTED_OUTAGE_S", 0.0)
    exchanges = load("sweeps").exchanges.values()
    watched = next(item for item in exchanges if re.search(r"^/sweeps/\w+/stream$", item["request"]["path"]))
    path, _, _ = watched["request"]["path"].rpartition("/")
    document = next(item["response"]["json"] for item in exchanges if item["request"]["path"] == path)
    *events, end = [f"{block}\n\n" for block in watched["response"]["text"].split("\n\n")[:-1]]
    assert "event: end" in end
    server.responses = [response(document), stream(*events), hang_up, stream(*events, end), *[response(document)] * 3]
    result = CliRunner().invoke(main, ["--server", server.url, "sweeps", document["id"], "--watch"])
    assert result.stderr.splitlines()[:2] == [LOST, RESTORED], result.output
    assert [line for line in result.stdout.splitlines() if line.startswith("winner: ")], "nothing is lost"
    assert len(set(result.stdout.splitlines())) == len(result.stdout.splitlines()), "or repeated"
