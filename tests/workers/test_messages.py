from __future__ import annotations

import json
from typing import Any

import pytest

from service.jobs.leases import Claim
from service.states import Request
from workers.messages import (
    Calibrate,
    Calibrated,
    Done,
    GaveUp,
    Order,
    Preparing,
    Progress,
    Ready,
    Report,
    Stop,
    Train,
    decode_order,
    decode_report,
    encode,
)

CLAIM = {"job_id": "job_1", "lease": 2, "lease_s": 15.0, "attempt": 3, "cpu_seconds": 0.5}
ORDERS: list[tuple[Order, Any]] = [
    (Train(Claim(**CLAIM)), CLAIM),  # type: ignore[arg-type]
    (Calibrate(), {"calibrate": True}),
    (Stop(None), {"stop": None}),
    (Stop(Request.PAUSE), {"stop": "pause"}),
]
REPORTS: list[tuple[Report, Any]] = [
    (Ready(), {"ready": True}),
    (Preparing(), {"preparing": True}),
    (Progress(1, 10), {"step": 1, "steps": 10}),
    (Done("succeeded"), {"done": "succeeded"}),
    (GaveUp("no answer"), {"gave_up": "no answer"}),
    (Calibrated({"dense": 1.5}), {"calibrated": {"dense": 1.5}}),
]


@pytest.mark.parametrize(("order", "document"), ORDERS)
def test_an_order_is_the_same_after_the_pipe(order: Order, document: Any) -> None:
    assert json.loads(encode(order)) == document
    assert decode_order(encode(order)) == order


@pytest.mark.parametrize(("report", "document"), REPORTS)
def test_a_report_is_the_same_after_the_pipe(report: Report, document: Any) -> None:
    assert json.loads(encode(report)) == document
    assert decode_report(encode(report)) == report


@pytest.mark.parametrize("data", [b"[]", b"{}", b'{"step": "1", "steps": 2}', b'{"other": 1}', b"{"])
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a report|Expecting"):
        decode_report(data)
