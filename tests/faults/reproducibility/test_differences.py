"""Why two jobs differ, down to the bit."""

from __future__ import annotations

import hashlib
import struct
from functools import partial
from typing import Any

import numpy as np
import pytest

from engine import checkpoint
from service.application.jobs import Jobs, NotComparable
from service.application.specs import SpecChecks
from service.datasets.repository import DatasetRepository
from service.errors import IllegalTransition
from service.jobs.differences import explanation, tensors
from service.jobs.differences.explanation import Differences
from service.jobs.queries import lookup
from service.states import Status
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Job
from service.sweeps import queries
from tests.faults.conftest import InProcessHarness
from workers.training.earlier_jobs.investigation import _Side
from workers.training.epochs import snapshot as snapshots

LONG: dict[str, Any] = {"epochs": 20, "checkpoint": {"keep_last": 20}}
BATCHES = 17


def train(process: InProcessHarness, **spec: Any) -> Job:
    job_id = process.submit(**spec)
    assert process.train() == "succeeded"
    return process.workers.job(job_id)


def find(process: InProcessHarness, a: Job, b: Job) -> Differences:
    return explanation.find(process.database, process.artifacts, partial(queries.pair, a=a.id, b=b.id, owner=None))


def use_case(process: InProcessHarness) -> Jobs:
    repository = DatasetRepository(process.workers.settings, process.database)
    specs = SpecChecks(database=process.database, datasets=repository)
    return Jobs(database=process.database, artifacts=process.artifacts, specs=specs)


def replay(process: InProcessHarness, a: Job, b: Job) -> dict[str, Any]:
    request = use_case(process).investigate({"a": a.id, "b": b.id})
    assert process.train() == "investigated"
    job = process.workers.job(request.answer["id"])
    assert (job.status, job.epoch, job.result_digest) == (Status.SUCCEEDED, 0, None)
    assert job.investigation is not None
    return job.investigation


def flip(process: InProcessHarness, job_id: str, epoch: int, tensor: str, index: int) -> tuple[float, float]:
    """Flip a bit of an element in a checkpoint, and return its value before and after."""
    with process.database.write() as session:
        row = next(row for row in lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT) if row.epoch == epoch)
        path = process.artifacts.root / row.path
        state = checkpoint.loads(path.read_bytes())
        flat = state.tensors[tensor].reshape(-1)
        before = float(flat[index])
        flat.view(np.uint32)[index] ^= 1 << 9
        data = checkpoint.dumps(state)
        path.write_bytes(data)
        row.sha256 = hashlib.sha256(data).hexdigest()
        return before, float(flat[index])


@pytest.mark.parametrize(
    ("index", "epoch"),
    [
        pytest.param(406 * 16 + 3, 8, id="a pixel in the middle"),
        pytest.param(5003, 20, id="a pixel that is always black, and changes no metric", marks=pytest.mark.nightly),
    ],
)
def test_a_bit_flipped_in_the_checkpoint_of_epoch_7_of_20_is_located(
    process: InProcessHarness, index: int, epoch: int
) -> None:
    a = train(process, **LONG)
    job_id = process.submit(**LONG)
    process.die_at("epoch_committed.7")
    before, after = flip(process, job_id, 7, "layers.0.weight", index)
    assert process.train() == "succeeded"
    b = process.workers.job(job_id)
    assert a.result_digest != b.result_digest

    difference = find(process, a, b)
    assert (difference.spec, difference.provenance, difference.dataset) == ([], [], None)
    assert difference.epoch is not None
    assert difference.epoch.epoch == epoch
    assert difference.checkpoint is not None
    assert (difference.checkpoint.epoch, difference.checkpoint.last_equal) == (7, 6)
    element = [index // 16, index % 16]
    tensor_difference = difference.checkpoint.difference
    assert (tensor_difference.tensor, tensor_difference.element, tensor_difference.a, tensor_difference.b) == (
        "layers.0.weight",
        element,
        before,
        after,
    )
    assert tensor_difference.tensors == ["layers.0.weight"]
    assert difference.sentence.startswith("The weights after epoch 7 differ, first in layers.0.weight, although")

    investigation = replay(process, a, b)
    assert investigation["found"] == {
        "epoch": 7, "batch": BATCHES, "batches": BATCHES, "tensor": "layers.0.weight", "element": element,
        "a": before, "b": after, "metrics": [], "not_repeated": b.id, "from_epoch": 6,
    }  # fmt: skip
    assert "epoch 7, batch 17 of 17 both trainings are equal, but b's stored result" in investigation["sentence"]
    swapped = replay(process, b, a)["found"]
    assert (swapped["not_repeated"], swapped["a"], swapped["b"]) == (b.id, after, before)


def test_a_bit_flipped_in_memory_is_traced_to_its_epoch(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"epochs": 5, "checkpoint": {}}  # only the best and the latest checkpoint are kept
    a = train(process, **spec)
    take_snapshot = snapshots.take_snapshot

    def snapshot_and_flip(run: Any, trainer: Any, done: Any, *arguments: Any, **named: Any) -> snapshots.EpochSnapshot:
        snapshot = take_snapshot(run, trainer, done, *arguments, **named)
        if done.epoch == 3:
            np.asarray(trainer.model.parameters[0]).reshape(-1).view(np.uint32)[406 * 16 + 3] ^= 1 << 20
        return snapshot

    with monkeypatch.context() as patched:
        patched.setattr("workers.training.run.take_snapshot", snapshot_and_flip)
        b = train(process, **spec)
    difference = find(process, a, b).epoch
    assert difference is not None
    assert difference.epoch == 4
    found = replay(process, a, b)["found"]
    assert (found["epoch"], found["batch"], found["not_repeated"]) == (4, None, b.id)
    assert "train_loss" in found["metrics"]


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_non_finite_value_is_null_but_named_in_the_sentence(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    a, b = train(process), train(process, seed=1)
    weights = _Side.weights.fget
    assert weights is not None

    def with_value(side: _Side) -> Any:
        changed = {name: array.copy() for name, array in weights(side).items()}
        if side.job.id == b.id:
            changed["layers.0.weight"].reshape(-1)[0] = value
        return changed

    same_start = {"seed": a.resolved["seed"]}
    with process.database.write() as session:
        session.get_one(Job, b.id).resolved = b.resolved | same_start
    monkeypatch.setattr(_Side, "weights", property(with_value))
    investigation = replay(process, a, b)
    assert investigation["found"]["b"] is None
    assert investigation["found"]["element"] == [0, 0]
    assert str(float(value)) in investigation["sentence"]


def test_different_settings_first_differ_in_the_batch_where_they_take_effect(process: InProcessHarness) -> None:
    a = train(process, schedule={"name": "step", "at_epochs": [1], "factor": 0.5})
    b = train(process, schedule={"name": "step", "at_epochs": [1], "factor": 0.25})
    difference = find(process, a, b)
    assert [(pair.name, pair.a, pair.b) for pair in difference.spec] == [("/schedule/factor", 0.5, 0.25)]
    assert difference.sentence.startswith("Epoch 2 is the first that differs, in ")
    assert difference.sentence.endswith(". The jobs differ in schedule.factor.")
    located = replay(process, a, b)["found"]
    assert (located["epoch"], located["batch"], located["batches"], located["not_repeated"]) == (2, 1, BATCHES, None)
    assert located["tensor"] == "layers.0.weight"
    assert located["a"] != located["b"]


def test_different_seeds_differ_in_the_initial_weights(process: InProcessHarness) -> None:
    investigation = replay(process, train(process), train(process, seed=1))
    assert (investigation["found"]["epoch"], investigation["found"]["batch"], investigation["found"]["tensor"]) == (
        0,
        0,
        "layers.0.weight",
    )


def test_equal_jobs_cannot_be_investigated(process: InProcessHarness) -> None:
    a, b = train(process), train(process)
    difference = find(process, a, b)
    assert difference.sentence == "These jobs are the same."
    with pytest.raises(NotComparable):
        use_case(process).investigate({"a": a.id, "b": b.id})


def test_an_investigation_whose_child_dies_is_repeated(process: InProcessHarness) -> None:
    a, b = train(process), train(process, batch_size=34)
    request = use_case(process).investigate({"a": a.id, "b": b.id})
    process.die_at("began")
    process.die_at("concluding")
    assert process.train() == "investigated"
    job = process.workers.job(request.answer["id"])
    assert job.investigation is not None
    assert (job.investigation["found"]["epoch"], job.investigation["found"]["batch"]) == (1, 1)
    with pytest.raises(IllegalTransition):
        use_case(process).reproduce(job.id)


def test_an_investigation_of_a_deleted_job_fails_as_not_comparable(process: InProcessHarness) -> None:
    a, b = train(process), train(process, seed=1)
    request = use_case(process).investigate({"a": a.id, "b": b.id})
    use_case(process).delete(b.id)
    process.train()
    job = process.workers.job(request.answer["id"])
    assert job.error is not None
    assert job.error["code"] == "not_comparable"


def test_checkpoints_are_compared_bit_by_bit() -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    first = {"layers.10.weight": weight, "layers.2.bias": weight[0], "optimizer.velocity.0": weight}
    second = {name: array.copy() for name, array in first.items()}
    second["layers.10.weight"][1, 2] = np.nextafter(np.float32(5), np.float32(6))
    second["optimizer.velocity.0"][0, 0] = -0.0  # another bit, though an equal number
    a, b = (tensors.read(checkpoint.dumps(checkpoint.State(arrays, {}, {}))) for arrays in (first, second))
    difference = tensors.first_difference(a, b)
    assert difference is not None
    assert (difference.tensor, difference.element, difference.a) == ("layers.10.weight", [1, 2], 5.0)
    assert struct.pack("<f", difference.b) == struct.pack("<f", np.nextafter(np.float32(5), np.float32(6)))
    assert difference.tensors == ["layers.10.weight", "optimizer.velocity.0"]
    assert tensors.first_difference(a, a) is None
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        tensors.read(b"\xff" * 20)
