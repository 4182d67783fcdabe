"""The error that a job gets for each kind of failure, and whether its machine is at fault."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from engine import DivergedError
from service.datasets.errors import DatasetUnavailable
from service.errors import JobNotFound, StorageQuotaExceeded
from service.schema.findings import Advice, Finding
from service.states import FindingCode, MachineFaultReason, Severity
from service.storage.artifacts import ArtifactDamaged, ArtifactUnreadable
from workers.messages import MachineFault
from workers.training import limits
from workers.training.failures import InitialCheckpointLost, Needs, StopOnFinding, explain

NEEDS = Needs(store="file:///store", learning_rate=0.5, checkpoint_bytes=2**21)
FINDING = Finding(
    code=FindingCode.DIVERGING,
    severity=Severity.ERROR,
    epoch=4,
    message="the loss grows",
    numbers={"a": 1.0},
    advice=[Advice({"epochs": 1}), Advice({}, "more data")],
)
UNAVAILABLE = "the dataset 'digits' is not available: no space. Make room."
REMEDY = "free disk space or repair the artifact store (tapeline doctor names the cause), then retry"
STORE = MachineFault(MachineFaultReason.STORE, "disk full", "file:///store", 2**21)


@pytest.mark.parametrize(
    ("error", "document", "fault"),
    [
        (
            DivergedError(epoch=2, step=7, loss="d_loss", value=math.inf),
            {
                "code": "diverged",
                "message": "d_loss is infinite in epoch 2 after 7 steps: the training diverged",
                "epoch": 2,
                "step": 7,
                "last_good_checkpoint": 3,
                "hint": "the same spec would diverge again: try a learning rate of 0.05 (it was 0.5), loss.reduction "
                '"mean", or the adam optimizer',
            },
            None,
        ),
        (
            StopOnFinding(FINDING),
            {
                "code": "diverging",
                "message": "the loss grows",
                "epoch": 4,
                "numbers": {"a": 1.0},
                "last_good_checkpoint": 3,
                "hint": "stopped because of health.stop_on; try epochs=1; or more data",
            },
            None,
        ),
        (
            DatasetUnavailable("digits", "no space", "Make room.", Path("/data")),
            {"code": "dataset_unavailable", "message": UNAVAILABLE},
            MachineFault(MachineFaultReason.DATASET, UNAVAILABLE, "/data", 2**20),
        ),
        (
            DatasetUnavailable("digits", "no space", "Make room."),
            {"code": "dataset_unavailable", "message": UNAVAILABLE},
            None,
        ),
        (
            InitialCheckpointLost("it is missing"),
            {
                "code": "storage",
                "message": "it is missing",
                "hint": "fork the parent again, or restore the file and retry",
            },
            None,
        ),
        (
            OSError("disk full"),
            {"code": "storage", "message": "disk full", "hint": REMEDY + ": the last checkpoint is kept"},
            STORE,
        ),
        (RuntimeError("a bug"), {"code": "internal", "message": "RuntimeError: a bug"}, None),
        (ArtifactDamaged("a", "b"), {"code": "internal", "message": "ArtifactDamaged: a: b"}, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_has_a_code_a_hint_and_a_culprit(
    error: Exception, document: dict[str, Any], fault: MachineFault | None
) -> None:
    failure = explain(error, NEEDS, lambda: 3)
    assert (failure.error, failure.fault) == (document, fault)


@pytest.mark.parametrize(("missing", "reason"), [(None, None), (3 * 10**9, MachineFaultReason.MEMORY)])
def test_memory_that_others_use_is_a_fault_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, missing: int | None, reason: MachineFaultReason | None
) -> None:
    monkeypatch.setattr(limits, "missing_memory_bytes", lambda estimated_bytes: missing)
    failure = explain(MemoryError(), NEEDS, lambda: None)
    hint = "use smaller networks or batches, or give the worker more memory"
    assert failure.error == {"code": "out_of_memory", "message": "out of memory", "hint": hint}
    assert (failure.fault and failure.fault.reason) == reason


def test_a_store_that_cannot_be_read_releases_the_job_and_a_lost_job_does_not() -> None:
    assert explain(ArtifactUnreadable("a", "b"), NEEDS, lambda: None).fault is not None
    failures = [
        explain(error, NEEDS, lambda: None) for error in (JobNotFound("job_1"), StorageQuotaExceeded("ann", 1, 1, 1))
    ]
    assert [(failure.error["code"], failure.fault) for failure in failures] == [
        ("not_comparable", None),
        ("storage_quota", None),
    ]
