from __future__ import annotations

import json
from typing import Any

import pytest

from service.jobs.leases import Claim
from service.runtime.tracing import Span
from service.states import MachineFaultReason, Request
from workers.messages import (
    ChildReady,
    Command,
    Done,
    MachineFault,
    Preparing,
    Progress,
    Report,
    Stop,
    Train,
    decode,
    encode,
)
from workers.operations import Call, Reply

CLAIM: dict[str, Any] = {
    "job_id": "job_1",
    "lease": 2,
    "token": "cd" * 16,
    "lease_s": 15.0,
    "attempt": 3,
    "cpu_seconds": 0.5,
    "request_id": "req_1",
    "traceparent": None,
    "trace": "00-abababababababababababababababab-cdcdcdcdcdcdcdcd-01",
    "row": {"id": "job_1", "spec": {"seed": 1}, "tags": ["a"], "owner": None},
}
SPAN: dict[str, Any] = {
    "name": "commit",
    "trace_id": "ab" * 16,
    "span_id": "cd" * 8,
    "start_ns": 1,
    "end_ns": 2,
    "kind": "internal",
    "parent_id": "ef" * 8,
    "link": None,
    "error": None,
    "attributes": {"tapeline.job.id": "job_1", "tapeline.epoch": 3},
}
FAULT = {"reason": "store", "message": "full", "folder": "/a", "size_bytes": 7}
MESSAGES: list[tuple[Command | Report, Any]] = [
    (Train(Claim(**CLAIM)), ["Train", {"claim": CLAIM}]),
    (Stop(None), ["Stop", {"request": None}]),
    (Stop(Request.PAUSE), ["Stop", {"request": "pause"}]),
    (ChildReady({"numpy": "2.3.0"}), ["ChildReady", {"provenance": {"numpy": "2.3.0"}}]),
    (Preparing(), ["Preparing", {}]),
    (Progress(1, 10), ["Progress", {"step": 1, "steps": 10}]),
    (MachineFault(MachineFaultReason.STORE, "full", "/a", 7), ["MachineFault", FAULT]),
    (Done("failed"), ["Done", {"outcome": "failed", "is_reusable": False}]),
    (Done("succeeded", is_reusable=True), ["Done", {"outcome": "succeeded", "is_reusable": True}]),
    (
        Call("service.jobs.commits.log", [["info"], {}], is_interruptible=True),
        ["Call", {"operation": "service.jobs.commits.log", "arguments": [["info"], {}], "is_interruptible": True}],
    ),
    (Reply({"a": 1}), ["Reply", {"value": {"a": 1}, "error": None}]),
    (Reply(error=["failed", ["why"]]), ["Reply", {"value": None, "error": ["failed", ["why"]]}]),
    (Span(**SPAN), ["Span", SPAN]),
]


@pytest.mark.parametrize(("message", "document"), MESSAGES)
def test_a_message_survives_a_round_trip(message: Command | Report, document: Any) -> None:
    assert json.loads(encode(message)) == document
    arrived = decode(encode(message))
    assert arrived == message
    assert json.loads(encode(arrived)) == document, "also what equality does not compare"


@pytest.mark.parametrize(
    "data", [b"[]", b"{}", b'["Progress", {"step": "one", "steps": 2}]', b'["Progress", {}]', b'["Other", {}]', b"{"]
)
def test_invalid_messages_are_rejected(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a message|Expecting|validation error"):
        decode(data)
