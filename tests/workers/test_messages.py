from __future__ import annotations

import json
from typing import Any

import pytest

from service.jobs.leases import Claim
from service.states import Request
from workers.messages import (
    ChildReady,
    Command,
    Done,
    GaveUp,
    Preparing,
    Progress,
    Report,
    Stop,
    Train,
    decode_command,
    decode_report,
    encode,
)

CLAIM = {"job_id": "job_1", "lease": 2, "lease_s": 15.0, "attempt": 3, "cpu_seconds": 0.5, "request_id": "req_1"}
COMMANDS: list[tuple[Command, Any]] = [
    (Train(Claim(**CLAIM)), CLAIM),  # type: ignore[arg-type]
    (Stop(None), {"stop": None}),
    (Stop(Request.PAUSE), {"stop": "pause"}),
]
REPORTS: list[tuple[Report, Any]] = [
    (ChildReady({"numpy": "2.3.0"}), {"ready": {"numpy": "2.3.0"}}),
    (Preparing(), {"preparing": True}),
    (Progress(1, 10), {"step": 1, "steps": 10}),
    (Done("failed"), {"done": "failed", "reusable": False}),
    (Done("succeeded", is_reusable=True), {"done": "succeeded", "reusable": True}),
    (GaveUp("no answer"), {"gave_up": "no answer"}),
]


@pytest.mark.parametrize(("command", "document"), COMMANDS)
def test_a_command_survives_a_round_trip(command: Command, document: Any) -> None:
    assert json.loads(encode(command)) == document
    assert decode_command(encode(command)) == command


@pytest.mark.parametrize(("report", "document"), REPORTS)
def test_a_report_survives_a_round_trip(report: Report, document: Any) -> None:
    assert json.loads(encode(report)) == document
    assert decode_report(encode(report)) == report


@pytest.mark.parametrize("data", [b"[]", b"{}", b'{"step": "1", "steps": 2}', b'{"other": 1}', b"{"])
def test_invalid_reports_are_rejected(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a report|Expecting"):
        decode_report(data)
