"""Why two jobs differ, down to the bit."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np
import pytest

from engine import checkpoint
from service.application.experiments import differences
from service.application.experiments.differences import Differences, NotComparable
from service.application.jobs import Jobs
from service.application.specs import SpecChecks
from service.datasets.repository import DatasetRepository
from service.errors import IllegalTransition
from service.jobs.differences import tensors
from service.jobs.queries import lookup
from service.states import Status
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Job
from tests.faults.conftest import InProcess
from workers.training.earlier.investigation import _Side
from workers.training.epochs import snapshot as snapshots

LONG: dict[str, Any] = {"epochs": 20, "checkpoint": {"keep_last": 20}}
BATCHES = 17


def train(process: InProcess, **spec: Any) -> Job:
    job_id = process.submit(**spec)
    assert process.train() == "succeeded"
    return process.workers.job(job_id)


def find(process: InProcess, a: Job, b: Job) -> Differences:
    return differences.find(process.database, process.artifacts, a.id, b.id, owner=None)


def use_case(process: InProcess) -> Jobs:
    repository = DatasetRepository(process.workers.settings, process.database)
    specs = SpecChecks(database=process.database, datasets=repository)
    return Jobs(database=process.database, artifacts=process.artifacts, specs=specs)


def replay(process: InProcess, a: Job, b: Job) -> dict[str, Any]:
    made = differences.request(use_case(process), {"a": a.id, "b": b.id}, by=None, idempotency=None)
    assert process.train() == "investigated"
    job = process.workers.job(made.answer["id"])
    assert (job.status, job.epoch, job.result_digest) == (Status.SUCCEEDED, 0, None)
    assert job.investigation is not None
    return job.investigation


def flip(process: InProcess, job_id: str, epoch: int, tensor: str, at: int) -> tuple[float, float]:
    """Flip a bit of an element in a checkpoint; gives its value before and after."""
    with process.database.write() as session:
        row = next(row for row in lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT) if row.epoch == epoch)
        path = process.artifacts.root / row.path
        state = checkpoint.loads(path.read_bytes())
        flat = state.tensors[tensor].reshape(-1)
        before = float(flat[at])
        flat.view(np.uint32)[at] ^= 1 << 9
        data = checkpoint.dumps(state)
        path.write_bytes(data)
        row.sha256 = hashlib.sha256(data).hexdigest()
        return before, float(flat[at])


@pytest.mark.parametrize(
    ("at", "epoch"),
    [
        pytest.param(406 * 16 + 3, 8, id="a pixel in the middle"),
        pytest.param(5003, 20, id="a pixel that is always black, and changes no metric"),
    ],
)
def test_a_bit_that_flips_after_epoch_7_of_20_is_named(process: InProcess, at: int, epoch: int) -> None:
    a = train(process, **LONG)
    job_id = process.submit(**LONG)
    process.die("epoch_committed.7")
    before, after = flip(process, job_id, 7, "layers.0.weight", at)
    assert process.train() == "succeeded"
    b = process.workers.job(job_id)
    assert a.result_digest != b.result_digest

    found = find(process, a, b)
    assert (found.spec, found.provenance, found.dataset) == ([], [], None)
    assert found.epoch is not None
    assert found.epoch.epoch == epoch
    assert found.checkpoint is not None
    assert (found.checkpoint.epoch, found.checkpoint.last_equal) == (7, 6)
    element = [at // 16, at % 16]
    first = found.checkpoint.difference
    assert (first.tensor, first.element, first.a, first.b) == ("layers.0.weight", element, before, after)
    assert first.tensors == ["layers.0.weight"]
    assert found.sentence.startswith("The weights after epoch 7 differ, first in layers.0.weight, although")

    told = replay(process, a, b)
    assert told["found"] == {
        "epoch": 7, "batch": BATCHES, "batches": BATCHES, "tensor": "layers.0.weight", "element": element,
        "a": before, "b": after, "metrics": [], "not_repeated": b.id, "from_epoch": 6,
    }  # fmt: skip
    assert "epoch 7, batch 17 of 17 both trainings are equal, but what b has stored" in told["sentence"]
    turned = replay(process, b, a)["found"]
    assert (turned["not_repeated"], turned["a"], turned["b"]) == (b.id, after, before)


def test_a_bit_that_flips_in_memory_is_found_in_its_epoch(process: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    short = {"epochs": 5, "checkpoint": {}}  # only the best and the latest checkpoint are kept
    a = train(process, **short)
    whole = snapshots.take_snapshot

    def copy_and_flip(run: Any, trainer: Any, done: Any, *others: Any, **named: Any) -> snapshots.EpochSnapshot:
        snapshot = whole(run, trainer, done, *others, **named)
        if done.epoch == 3:
            np.asarray(trainer.model.parameters[0]).reshape(-1).view(np.uint32)[406 * 16 + 3] ^= 1 << 20
        return snapshot

    with monkeypatch.context() as patched:
        patched.setattr("workers.training.run.take_snapshot", copy_and_flip)
        b = train(process, **short)
    difference = find(process, a, b).epoch
    assert difference is not None
    assert difference.epoch == 4
    found = replay(process, a, b)["found"]
    assert (found["epoch"], found["batch"], found["not_repeated"]) == (4, None, b.id)
    assert "train_loss" in found["metrics"]


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_value_that_is_not_finite_is_in_the_sentence(
    process: InProcess, monkeypatch: pytest.MonkeyPatch, value: float
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
    answer = replay(process, a, b)
    assert answer["found"]["b"] is None
    assert answer["found"]["element"] == [0, 0]
    assert str(float(value)) in answer["sentence"]


def test_other_settings_differ_in_the_batch_where_they_begin_to_count(process: InProcess) -> None:
    a = train(process, schedule={"name": "step", "at_epochs": [1], "factor": 0.5})
    b = train(process, schedule={"name": "step", "at_epochs": [1], "factor": 0.25})
    found = find(process, a, b)
    assert [(pair.name, pair.a, pair.b) for pair in found.spec] == [("/schedule/factor", 0.5, 0.25)]
    assert found.sentence.startswith("Epoch 2 is the first that differs, in ")
    assert found.sentence.endswith(". The jobs differ in schedule/factor.")
    told = replay(process, a, b)["found"]
    assert (told["epoch"], told["batch"], told["batches"], told["not_repeated"]) == (2, 1, BATCHES, None)
    assert told["tensor"] == "layers.0.weight"
    assert told["a"] != told["b"]


def test_other_seeds_differ_from_the_start(process: InProcess) -> None:
    told = replay(process, train(process), train(process, seed=1))
    assert (told["found"]["epoch"], told["found"]["batch"], told["found"]["tensor"]) == (0, 0, "layers.0.weight")


def test_equal_jobs_are_not_trained_again(process: InProcess) -> None:
    a, b = train(process), train(process)
    found = find(process, a, b)
    assert found.sentence == "No difference in 3 epochs."
    with pytest.raises(NotComparable):
        differences.request(use_case(process), {"a": a.id, "b": b.id}, by=None, idempotency=None)


def test_an_investigation_whose_child_dies_is_done_again(process: InProcess) -> None:
    a, b = train(process), train(process, batch_size=34)
    made = differences.request(use_case(process), {"a": a.id, "b": b.id}, by=None, idempotency=None)
    process.die("began")
    process.die("concluding")
    assert process.train() == "investigated"
    job = process.workers.job(made.answer["id"])
    assert job.investigation is not None
    assert (job.investigation["found"]["epoch"], job.investigation["found"]["batch"]) == (1, 1)
    with pytest.raises(IllegalTransition):
        use_case(process).reproduce(job.id)


def test_an_investigation_of_a_deleted_job_fails_and_says_so(process: InProcess) -> None:
    a, b = train(process), train(process, seed=1)
    made = differences.request(use_case(process), {"a": a.id, "b": b.id}, by=None, idempotency=None)
    use_case(process).delete(b.id)
    process.train()
    job = process.workers.job(made.answer["id"])
    assert job.error is not None
    assert job.error["code"] == "not_comparable"


def test_tables_and_their_checkpoints_are_compared_without_numpy() -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    one = {"layers.10.weight": weight, "layers.2.bias": weight[0], "optimizer.velocity.0": weight}
    other = {name: array.copy() for name, array in one.items()}
    other["layers.10.weight"][1, 2] = np.nextafter(np.float32(5), np.float32(6))
    other["optimizer.velocity.0"][0, 0] = -0.0  # another bit, though an equal number
    a, b = (tensors.read(checkpoint.dumps(checkpoint.State(held, {}, {}))) for held in (one, other))
    found = tensors.first_difference(a, b)
    assert found is not None
    assert (found.tensor, found.element, found.a) == ("layers.10.weight", [1, 2], 5.0)
    assert struct.pack("<f", found.b) == struct.pack("<f", np.nextafter(np.float32(5), np.float32(6)))
    assert found.tensors == ["layers.10.weight", "optimizer.velocity.0"]
    assert tensors.first_difference(a, a) is None
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        tensors.read(b"\xff" * 20)
