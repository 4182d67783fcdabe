"""Train two jobs again side by side, to find the first batch, tensor and element in which they differ."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from engine import BatchDone, EpochDone, checkpoint
from engine.autograd.graph import Array
from engine.trainers.trainer import Trainer
from service.datasets.cache import Dataset
from service.datasets.shapes import shape_of
from service.datasets.tables.preprocessing import Preprocessing
from service.errors import ServiceError
from service.jobs import commits
from service.jobs.differences import results, tensors
from service.jobs.differences.results import first_difference
from service.jobs.differences.tensors import TensorDifference
from service.schema import costs
from service.spec.estimation.networks import networks
from service.spec.validation import read_resolved
from service.states import DatasetKind
from service.storage.tables import Artifact, Epoch, Job
from workers.messages import Preparing
from workers.training import build, fork_state, limits
from workers.training.diagnostics import TrainingDiagnostics
from workers.training.training_run import TrainingRun

Tensors = Mapping[str, Array]
_FORMATS: Final = {"float16": "<e", "float32": "<f", "float64": "<d", "int64": "<q"}


class NothingToReplay(ServiceError):
    """There is no epoch from which both jobs can be trained again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstDifference:
    """Where two trainings first differ."""

    epoch: int
    batch: int | None
    """Number of finished batches of the epoch; ``None``: somewhere in the epoch."""
    batches: int | None = None
    tensor: str | None = None
    element: list[int] = field(default_factory=list)
    a: float | None = None
    b: float | None = None
    metrics: list[str] = field(default_factory=list)
    """The differing metrics of the epoch, if no tensor is known."""
    not_repeated: str | None = None
    """The job whose stored result differs from that of its own training: its bits were changed from outside."""
    from_epoch: int
    """The epoch of the checkpoint from which both were trained; 0: the start."""


class _Side:
    """One of the two jobs, which is trained again."""

    def __init__(self, run: TrainingRun, dataset: Dataset, stored: tuple[Job, dict[int, Epoch], dict[int, Artifact]]):
        self._run, self._dataset = run, dataset
        self.job, self.rows, self.checkpoints = stored
        self.spec = read_resolved(self.job.resolved)
        self._preprocessing = self._load_preprocessing() if dataset.info.kind is DatasetKind.TABLE else None
        self.trainer = self._new_trainer()

    def _load_preprocessing(self) -> Preprocessing:
        """The preprocessing of a table, as in the job's own training, in which a fork uses that of its parent."""
        if self.job.start_epoch in self.checkpoints:
            row = self.checkpoints[self.job.start_epoch]
            state = checkpoint.loads(self._run.artifacts.read(row.path, row.sha256)).state
            return Preprocessing.read(state["preprocessing"])
        return Preprocessing.fit(self._dataset.info.columns, self._dataset.train.inputs)

    def _new_trainer(self) -> Trainer:
        return build.trainer(self.spec, self._dataset, self._preprocessing)

    @property
    def start_epochs(self) -> set[int]:
        """The epochs from which the job can be trained again."""
        return {*self.checkpoints, *([0] if not self.job.start_epoch else [])}

    def stored_tensors(self, epoch: int) -> Tensors:
        """The stored tensors after an epoch; 0: the initial tensors of a new training."""
        if epoch == 0:
            return self._new_trainer().state_dict().tensors
        row = self.checkpoints[epoch]
        return checkpoint.loads(self._run.artifacts.read(row.path, row.sha256)).tensors

    def begin(self, epoch: int) -> None:
        """Restore the trainer to the end of an epoch, and prepare the diagnostics of the following epochs."""
        self.trainer = self._new_trainer()
        if epoch:
            row = self.checkpoints[epoch]
            state = checkpoint.loads(self._run.artifacts.read(row.path, row.sha256))
            if epoch == self.job.start_epoch:
                state, _ = fork_state.adapt(state, self.spec)
            self.trainer.load_state_dict(state)
        self.diagnostics = TrainingDiagnostics.of(self.spec, self._dataset)
        self.diagnostics.replay([row for row in self.rows.values() if row.epoch <= epoch])

    @property
    def weights(self) -> Tensors:
        """The current weights, also in the middle of an epoch."""
        return self.trainer.named_arrays()

    def differences_from_stored(self, done: EpochDone) -> tuple[TensorDifference | None, list[str]]:
        """Differences of a retrained epoch from the stored one: a tensor (``b`` is the stored value), and metrics."""
        done = self.diagnostics.evaluate(self.trainer, done)
        stored_checkpoint = self.checkpoints.get(done.epoch)
        tensor = (
            _first_tensor_difference(self.trainer.state_dict().tensors, self.stored_tensors(done.epoch))
            if stored_checkpoint
            else None
        )
        row = self.rows.get(done.epoch)
        metrics = commits.differences(row.metrics, {**done.metrics, **done.scores}) if row is not None else []
        return tensor, metrics


def investigate(run: TrainingRun, load: Callable[[Job], Dataset]) -> None:
    """Train the two jobs of an investigation until they differ, and store the difference."""
    stored = run.lease.call(results.read_jobs)
    loaded: dict[str | None, Dataset] = {}
    sides = []
    for entry in stored:
        key = f"{entry[0].dataset_sha256} {entry[0].resolved['dataset']} {entry[0].resolved['seed']}"
        loaded[key] = loaded.get(key) or load(entry[0])
        sides.append((loaded[key], entry))
    specs = [(read_resolved(entry[0].resolved), shape_of(dataset.info)) for dataset, entry in sides]
    limits.limit_memory(sum(costs.peak_bytes(spec, networks(spec, shape), shape) for spec, shape in specs))
    a, b = (_Side(run, dataset, entry) for dataset, entry in sides)
    difference = _search(run, a, b)
    result, sentence = {} if difference is None else asdict(difference), _describe(difference, a.job, b.job)
    run.lease.call(results.conclude, result, sentence, used=run.meter.total())


def _search(run: TrainingRun, a: _Side, b: _Side) -> FirstDifference | None:
    stored_difference = first_difference(a.job, b.job, list(a.rows.values()), list(b.rows.values()))
    last = stored_difference.epoch if stored_difference is not None else min(a.job.epoch, b.job.epoch)
    common = sorted(epoch for epoch in a.start_epochs & b.start_epochs if epoch < last)
    if not common:
        raise NothingToReplay("the jobs keep no checkpoint of the same epoch, and one is a fork")
    start_epoch = None
    for epoch in common:  # in order: a flipped bit may be rounded away again
        tensor_difference = _first_tensor_difference(a.stored_tensors(epoch), b.stored_tensors(epoch))
        if tensor_difference is not None:
            if start_epoch is None:
                facts = _element(tensor_difference)
                return FirstDifference(**facts, epoch=epoch, batch=None if epoch else 0, from_epoch=epoch)
            break
        start_epoch = epoch
    start_epoch = start_epoch or 0
    a.begin(start_epoch)
    b.begin(start_epoch)
    batch = 0
    for report_a, report_b in itertools.zip_longest(a.trainer.run(), b.trainer.run()):
        run.endpoint.report_progress(Preparing())
        run.endpoint.check_stop()
        match report_a, report_b:
            case BatchDone(), BatchDone():
                batch += 1
                tensor_difference = _first_tensor_difference(a.weights, b.weights)
                if tensor_difference is not None:
                    steps = report_a.steps // a.spec.epochs
                    return FirstDifference(
                        **_element(tensor_difference),
                        epoch=report_a.epoch,
                        batch=batch,
                        batches=steps,
                        from_epoch=start_epoch,
                    )
            case EpochDone(), EpochDone():
                difference = _replay_mismatch(a, report_a, batch, start_epoch, is_a=True) or _replay_mismatch(
                    b, report_b, batch, start_epoch
                )
                if difference is not None:
                    return difference
                batch = 0
                if report_a.epoch >= last:
                    return None
            case (BatchDone(), EpochDone()) | (EpochDone(), BatchDone()):
                metrics = ["number of batches"]
                return FirstDifference(epoch=report_a.epoch, batch=batch, from_epoch=start_epoch, metrics=metrics)
            case _:
                return None  # one training is a prefix of the other
    return None


def _replay_mismatch(
    side: _Side, done: EpochDone, batches: int, start_epoch: int, *, is_a: bool = False
) -> FirstDifference | None:
    """The first difference between a job's stored result and its retraining."""
    tensor, metrics = side.differences_from_stored(done)
    if tensor is None and not metrics:
        return None
    if tensor is not None and is_a:
        tensor = replace(tensor, a=tensor.b, b=tensor.a)
    # The weights were changed after the last batch or, if the metrics differ too, at some time before.
    batch = batches if tensor is not None and not metrics else None
    return FirstDifference(
        **_element(tensor),
        epoch=done.epoch,
        batch=batch,
        batches=batches,
        from_epoch=start_epoch,
        metrics=metrics,
        not_repeated=side.job.id,
    )


def _element(difference: TensorDifference | None) -> dict[str, Any]:
    names = ("tensor", "element", "a", "b") if difference is not None else ()
    return {name: getattr(difference, name) for name in names}


def _first_tensor_difference(a: Tensors, b: Tensors) -> TensorDifference | None:
    """The first element that differs."""
    first, second = (
        {name: tensors.Tensor(_FORMATS[array.dtype.name], array.shape, array.tobytes()) for name, array in side.items()}
        for side in (a, b)
    )
    return tensors.first_difference(first, second)


def _describe(difference: FirstDifference | None, a: Job, b: Job) -> str:
    if difference is None:
        return "Both jobs were trained again and do not differ."
    batch = (
        f", batch {difference.batch}" + (f" of {difference.batches}" if difference.batches else "")
        if difference.batch
        else ""
    )
    location = f"epoch {difference.epoch}{batch}"
    detail = ", ".join(difference.metrics[:3])
    if difference.tensor is not None:
        element = (
            f"{difference.tensor}[{', '.join(map(str, difference.element))}]"
            if difference.element
            else difference.tensor
        )
        detail = f"{element} is {difference.a!r} and {difference.b!r}"
    if difference.not_repeated is not None:
        side = "a" if difference.not_repeated == a.id else "b"
        if difference.tensor is not None:
            values = (difference.a, difference.b) if side == "a" else (difference.b, difference.a)
            detail = f"{element} is {values[0]!r}, and its training gives {values[1]!r}"
        return (
            f"Up to {location} both trainings are equal, but {side}'s stored result differs from its replay: {detail}."
        )
    return f"The jobs first differ in {location}: {detail}."
