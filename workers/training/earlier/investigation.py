"""Train two jobs again side by side, to find the first batch, tensor and element in which they differ."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np

from engine import BatchDone, ClassifierTrainer, EpochDone, GanTrainer, checkpoint
from engine.autograd.graph import Array
from service.datasets.cache import Dataset
from service.datasets.shapes import shape_of
from service.datasets.tables.preprocessing import Preprocessing
from service.errors import ServiceError
from service.jobs import commits
from service.jobs.differences import tensors
from service.jobs.differences.results import first_difference
from service.jobs.differences.tensors import TensorDifference
from service.spec.estimation import costs
from service.spec.validation import read_resolved
from service.states import DatasetKind
from service.storage.tables import Artifact, Epoch, Job
from workers.training import build, fork_state, limits
from workers.training.build import Trainer
from workers.training.diagnostics import TrainingDiagnostics
from workers.training.training_run import TrainingRun

_KEEPALIVE_INTERVAL_S: Final = 5.0
Tensors = Mapping[str, Array]


class NothingToReplay(ServiceError):
    """There is no epoch from which both jobs can be trained again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where two trainings first differ."""

    epoch: int
    batch: int | None
    """Batches of the epoch that were done; ``None``: somewhere in the epoch."""
    batches: int | None
    tensor: str | None
    element: list[int]
    a: float | None
    b: float | None
    metrics: list[str]
    """Of the epoch, where no tensor is known."""
    not_repeated: str | None
    """The job whose stored result is not what its own training gives: its bits were changed from outside."""
    from_epoch: int
    """The checkpoint that both were trained from; 0: the start."""


class _Side:
    """One of the two jobs, trained again."""

    def __init__(self, run: TrainingRun, dataset: Dataset, stored: tuple[Job, dict[int, Epoch], dict[int, Artifact]]):
        self._run, self._dataset = run, dataset
        self.job, self.rows, self.kept = stored
        self.spec = read_resolved(self.job.resolved)
        self._preprocessing = self._fitted() if dataset.info.kind is DatasetKind.TABLE else None
        self.trainer = self._new_trainer()

    def _fitted(self) -> Preprocessing:
        """Of a table: as in the job's own training, where a fork has that of its parent."""
        if self.job.start_epoch in self.kept:
            row = self.kept[self.job.start_epoch]
            state = checkpoint.loads(self._run.artifacts.read(row.path, row.sha256)).state
            return Preprocessing.read(state["preprocessing"])
        return Preprocessing.fit(self._dataset.info.columns, self._dataset.train.inputs)

    def _new_trainer(self) -> Trainer:
        return build.trainer(self.spec, self._dataset, self._preprocessing)

    @property
    def starts(self) -> set[int]:
        """The epochs from which it can be trained."""
        return {*self.kept, *([0] if not self.job.start_epoch else [])}

    def stored_tensors(self, epoch: int) -> Tensors:
        """What is stored after an epoch; 0: what a new training begins with."""
        if epoch == 0:
            return self._new_trainer().state_dict().tensors
        row = self.kept[epoch]
        return checkpoint.loads(self._run.artifacts.read(row.path, row.sha256)).tensors

    def begin(self, epoch: int) -> None:
        """Go to the end of an epoch, and make ready to diagnose what comes after it."""
        self.trainer = self._new_trainer()
        if epoch:
            row = self.kept[epoch]
            state = checkpoint.loads(self._run.artifacts.read(row.path, row.sha256))
            if epoch == self.job.start_epoch:
                state, _ = fork_state.adapt(state, self.spec)
            self.trainer.load_state_dict(state)
        self.diagnostics = TrainingDiagnostics.of(self.spec, self._dataset)
        self.diagnostics.replay([row for row in self.rows.values() if row.epoch <= epoch])

    @property
    def weights(self) -> Tensors:
        """The weights as they are, in the middle of an epoch too."""
        match self.trainer:
            case ClassifierTrainer():
                networks = {"": self.trainer.model}
            case GanTrainer():
                networks = {"generator.": self.trainer.generator, "discriminator.": self.trainer.discriminator}
        return {
            prefix + name: np.asarray(array)
            for prefix, network in networks.items()
            for name, array in (network.named_parameters() | network.named_buffers()).items()
        }

    def unlike_stored(self, done: EpochDone) -> tuple[TensorDifference | None, list[str]]:
        """What of an epoch that was trained again is not as it is stored; the stored value is ``b``."""
        done = self.diagnostics.evaluate(self.trainer, done)
        kept = self.kept.get(done.epoch)
        tensor = _first(self.trainer.state_dict().tensors, self.stored_tensors(done.epoch)) if kept else None
        row = self.rows.get(done.epoch)
        metrics = commits.differing(row.metrics, {**done.metrics, **done.scores}) if row is not None else []
        return tensor, metrics


def investigate(run: TrainingRun, load: Callable[[Job], Dataset]) -> None:
    """Train the two jobs of an investigation until they differ, and store what was found."""
    stored = run.lease.investigated()
    loaded: dict[str | None, Dataset] = {}
    sides = []
    for one in stored:
        key = f"{one[0].dataset_sha256} {one[0].resolved['dataset']} {one[0].resolved['seed']}"
        loaded[key] = loaded.get(key) or load(one[0])
        sides.append((loaded[key], one))
    specs = [(read_resolved(one[0].resolved), dataset) for dataset, one in sides]
    limits.limit_memory(sum(costs.peak_bytes(spec, shape_of(dataset.info)) for spec, dataset in specs))
    a, b = (_Side(run, dataset, one) for dataset, one in sides)
    found = _search(run, a, b)
    run.lease.conclude({} if found is None else asdict(found), _sentence(found, a.job, b.job), used=run.meter.total())


def _search(run: TrainingRun, a: _Side, b: _Side) -> Found | None:
    at = first_difference(a.job, b.job, list(a.rows.values()), list(b.rows.values()))
    last = at.epoch if at is not None else min(a.job.epoch, b.job.epoch)
    common = sorted(epoch for epoch in a.starts & b.starts if epoch < last)
    if not common:
        raise NothingToReplay("the jobs keep no checkpoint of the same epoch, and one is a fork")
    begin = None
    for epoch in common:  # in order: a flipped bit may be rounded away again
        parted = _first(a.stored_tensors(epoch), b.stored_tensors(epoch))
        if parted is not None:
            if begin is None:
                return _found(parted, epoch=epoch, batch=None if epoch else 0, from_epoch=epoch)
            break
        begin = epoch
    begin = begin or 0
    a.begin(begin)
    b.begin(begin)
    batch, reported_at = 0, time.monotonic()
    for one, other in itertools.zip_longest(a.trainer.run(), b.trainer.run()):
        if time.monotonic() - reported_at > _KEEPALIVE_INTERVAL_S:
            reported_at = time.monotonic()
            run.endpoint.preparing()
        run.check_stop()
        match one, other:
            case BatchDone(), BatchDone():
                batch += 1
                parted = _first(a.weights, b.weights)
                if parted is not None:
                    steps = one.steps // a.spec.epochs
                    return _found(parted, epoch=one.epoch, batch=batch, batches=steps, from_epoch=begin)
            case EpochDone(), EpochDone():
                found = _replay_mismatch(a, one, batch, begin, is_a=True) or _replay_mismatch(b, other, batch, begin)
                if found is not None:
                    return found
                batch = 0
                if one.epoch >= last:
                    return None
            case (BatchDone(), EpochDone()) | (EpochDone(), BatchDone()):
                metrics = ["number of batches"]
                return _found(None, epoch=one.epoch, batch=batch, from_epoch=begin, metrics=metrics)
            case _:
                return None  # one is a prefix of the other
    return None


def _replay_mismatch(side: _Side, done: EpochDone, batches: int, begin: int, *, is_a: bool = False) -> Found | None:
    """The first difference between a job's stored result and its retraining."""
    tensor, metrics = side.unlike_stored(done)
    if tensor is None and not metrics:
        return None
    if tensor is not None and is_a:
        tensor = replace(tensor, a=tensor.b, b=tensor.a)
    # The weights after the last batch were changed, or, if the metrics tell of it as well, some time before.
    batch = batches if tensor is not None and not metrics else None
    return _found(tensor, epoch=done.epoch, batch=batch, batches=batches, from_epoch=begin, metrics=metrics,
                  not_repeated=side.job.id)  # fmt: skip


def _found(
    parted: TensorDifference | None,
    *,
    epoch: int,
    batch: int | None,
    from_epoch: int,
    batches: int | None = None,
    metrics: list[str] | None = None,
    not_repeated: str | None = None,
) -> Found:
    return Found(
        epoch=epoch,
        batch=batch,
        batches=batches,
        tensor=parted.tensor if parted else None,
        element=parted.element if parted else [],
        a=parted.a if parted else None,
        b=parted.b if parted else None,
        metrics=metrics or [],
        not_repeated=not_repeated,
        from_epoch=from_epoch,
    )


def _first(a: Tensors, b: Tensors) -> TensorDifference | None:
    """The first element that differs."""
    differing = [name for name in sorted({*a, *b}, key=tensors.order) if not _same(a.get(name), b.get(name))]
    if not differing:
        return None
    first, second = a.get(differing[0]), b.get(differing[0])
    if first is None or second is None or first.shape != second.shape or first.dtype != second.dtype:
        return TensorDifference(tensor=differing[0], element=[], a=None, b=None, tensors=differing)
    whole = first.dtype.itemsize
    bits = [np.ascontiguousarray(one).view(np.uint8).reshape(-1, whole) for one in (first, second)]
    at = int(np.flatnonzero((bits[0] != bits[1]).any(axis=1))[0])
    values = [float(one.reshape(-1)[at]) for one in (first, second)]
    return TensorDifference(
        tensor=differing[0], element=tensors.index_of(at, first.shape), a=values[0], b=values[1], tensors=differing
    )


def _same(a: Array | None, b: Array | None) -> bool:
    return a is not None and b is not None and a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def _sentence(found: Found | None, a: Job, b: Job) -> str:
    if found is None:
        return "Both jobs were trained again and do not differ."
    batch = f", batch {found.batch}" + (f" of {found.batches}" if found.batches else "") if found.batch else ""
    where = f"epoch {found.epoch}{batch}"
    what = ", ".join(found.metrics[:3])
    if found.tensor is not None:
        element = f"{found.tensor}[{', '.join(map(str, found.element))}]" if found.element else found.tensor
        what = f"{element} is {found.a!r} and {found.b!r}"
    if found.not_repeated is not None:
        side = "a" if found.not_repeated == a.id else "b"
        if found.tensor is not None:
            values = (found.a, found.b) if side == "a" else (found.b, found.a)
            what = f"{element} is {values[0]!r}, and its training gives {values[1]!r}"
        return f"Up to {where} both trainings are equal, but what {side} has stored is not what it computes: {what}."
    return f"The jobs first differ in {where}: {what}."
