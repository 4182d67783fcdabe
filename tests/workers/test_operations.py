"""Values that cross between a training process and its supervisor arrive with the same types and bits."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jobs import commits, leases
from service.jobs.epoch_commits import EpochRecord
from service.jobs.leases import Claim, Position, Usage
from service.jobs.reuse.sources import Source
from service.schema.findings import Advice, Finding
from service.states import ErrorCode, FindingCode, Request, Severity, Status
from service.storage.artifacts import ArtifactKind, StoredFile
from service.storage.tables import Artifact, Base, Job
from tests.workers.conftest import WorkerHarness
from workers import messages, operations
from workers.messages import Train
from workers.operations import OperationFailed, decode, encode, refusal

KEYS = st.text() | st.integers()
ENUMS = st.sampled_from([Request.PAUSE, Status.RUNNING, ErrorCode.DIVERGED, ArtifactKind.SAMPLE])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | ENUMS
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(KEYS, inner)
        | st.fixed_dictionaries({"~": inner})
        | st.builds(Advice, st.dictionaries(st.text(), inner), st.text())
    ),
)


def is_same(a: Any, b: Any) -> bool:
    """Whether two values have the same types and bits; ``==`` has NaN unequal, and 1, 1.0 and True equal."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(map(is_same, a, b)) and all(is_same(a[key], b[key]) for key in a)
    if isinstance(a, Sequence) and not isinstance(a, str):
        return len(a) == len(b) and all(map(is_same, a, b))
    if isinstance(a, Base):
        return is_same(columns(a), columns(b))
    if dataclasses.is_dataclass(a):
        return all(is_same(getattr(a, item.name), getattr(b, item.name)) for item in dataclasses.fields(a))
    return bool(a == b)


def columns(row: Base) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in row.__mapper__.column_attrs}


def sent(value: Any) -> Any:
    return decode(json.loads(json.dumps(encode(value))))


@given(VALUES)
def test_every_value_arrives_with_its_types_and_bits(value: Any) -> None:
    assert is_same(sent(value), value)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -0.0, 5e-324, 1.7976931348623157e308, 2**53 + 1, 0.1])
def test_numbers_that_json_does_not_have_arrive(value: float) -> None:
    assert is_same(sent([value]), [value])


def test_a_float_of_numpy_arrives_as_one_of_python_and_an_array_does_not_cross() -> None:
    assert is_same(sent(np.float64(0.1)), 0.1)
    for value in (np.zeros(2), object(), b"x", {1, 2}):
        with pytest.raises(TypeError, match="do not cross"):
            encode(value)


def test_a_record_arrives_with_its_files_and_findings() -> None:
    finding = Finding(
        code=FindingCode.DEAD_UNITS,
        severity=Severity.WARNING,
        epoch=3,
        message="m",
        numbers={"share": 0.5, "count": 3},
        advice=[Advice({"optimizer.learning_rate": 0.1})],
    )
    file = StoredFile(
        kind=ArtifactKind.CHECKPOINT, epoch=3, path="p", name="n", size_bytes=1, sha256="s", store_id=None
    )
    record = EpochRecord(
        epoch=3,
        position=Position(step=3, steps=4),
        metrics={"train_loss": math.nan, "count": 4},
        confusion=[[1, 2], [3, 4]],
        samples_digest=None,
        seconds=0.1,
        is_best=True,
        files=(file,),
        health=(finding,),
        used=Usage(cpu_seconds=1.5, peak_memory_bytes=2**40),
    )
    assert is_same(sent(record), record)


def test_rows_arrive_without_a_session(sqlite_workers: WorkerHarness) -> None:
    job_id = sqlite_workers.submit()
    job = sqlite_workers.job(job_id)
    source = Source(job, epochs=1, best_epoch=None, is_whole=True)
    arrived = sent([source, Artifact(id="a", job_id=job_id, kind="sample", epoch=1)])
    assert is_same(columns(arrived[0].job), columns(job))
    assert (arrived[0].is_whole, arrived[1].id) == (True, "a")


def test_the_row_of_a_claim_arrives_with_its_command(sqlite_workers: WorkerHarness) -> None:
    job_id = sqlite_workers.submit(name="grün", tags=["a"])
    with sqlite_workers.database.write() as session:
        job = session.get_one(Job, job_id)
        job.metrics, job.extremes = {"train_loss": 0.1}, {"train_loss": [0.1, 1]}
        job.provenance = {"numpy": "2", "judge": "sha256:a", "preprocessing": {"mean": [1.5, None]}}
    held = leases.claim(sqlite_workers.database, "w", 30)
    assert held is not None
    command = messages.decode(messages.encode(Train(held)))
    assert isinstance(command, Train)
    assert is_same(dict(command.claim.row), held.row)
    assert is_same(columns(Job(**command.claim.row)), columns(sqlite_workers.job(job_id)))


@pytest.mark.parametrize("value", [{"~": "Claim", "value": {}}, {"~": "Job"}, {"~": "Status", "value": "other"}])
def test_values_of_other_types_are_rejected(value: Any) -> None:
    with pytest.raises(ValueError, match=r"unknown value|not a valid"):
        decode(value)


def test_every_expected_error_arrives_as_itself() -> None:
    for name, (kind, attributes) in operations._ERRORS.items():
        error = kind(*([1] * len(attributes) or ["why"]))
        reply = refusal(error)
        assert reply.error is not None
        assert reply.error[0] == name
        with pytest.raises(kind) as caught:
            reply.result()
        assert (type(caught.value), str(caught.value)) == (kind, str(error))


def test_an_operation_that_no_table_lists_is_not_executed(sqlite_workers: WorkerHarness) -> None:
    message = operations.Call("os.system", encode([["true"], {}]), is_interruptible=False)
    with pytest.raises(KeyError, match=r"os\.system"):
        operations.execute(sqlite_workers.database, Claim(job_id="job_1", lease=1, token="", lease_s=1), message)
    with pytest.raises(OperationFailed, match="KeyError"):
        refusal(OperationFailed("KeyError: 'os.system'")).result()


def test_the_decisions_of_a_sweep_are_part_of_each_transaction_that_can_end_a_job(
    sqlite_workers: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite_workers.submit()
    held = leases.claim(sqlite_workers.database, "w", 30)
    assert held is not None
    decided: list[str] = []
    monkeypatch.setattr(operations.decisions, "after_result", lambda session, job: decided.append(job.id))
    message = operations.call(commits.fail, {"code": "internal", "message": "m"})
    assert operations.execute(sqlite_workers.database, held, message).result() is None
    assert decided == [held.job_id]
