"""Use case: explain why two jobs have different results."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from service.jobs.differences import results, tensors
from service.jobs.differences.results import DifferingEpoch
from service.jobs.differences.tensors import TensorDifference
from service.jobs.queries import lookup
from service.spec import splits
from service.spec.metric_info import KEY_METRICS, METRICS, describe
from service.spec.validation import NOT_HASHED
from service.states import TERMINAL, Status
from service.storage.artifacts import ArtifactDamaged, ArtifactKind, ArtifactStore
from service.storage.database import Database
from service.storage.tables import Artifact, Job
from service.wording import counted, listed
from tapeline.inputs.values import dotted

_MAX_NAMED: Final = 3
"""Maximum number of metrics that a sentence names."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Something in which the jobs differ: its name, and the value of each job."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointDifference:
    """The first kept checkpoints of one epoch that differ."""

    epoch: int
    last_equal: int | None
    """The last epoch before it of which both checkpoints are kept and equal."""
    difference: TensorDifference


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """All stored differences between two jobs."""

    a: Job
    b: Job
    spec: Sequence[Pair]
    """By JSON pointer."""
    provenance: Sequence[Pair]
    dataset: Pair | None
    epoch: DifferingEpoch | None
    checkpoint: CheckpointDifference | None
    compared_epochs: int
    is_same: bool = False
    data: str | None = None
    """How the data differ on which the scores were measured."""

    @property
    def sentence(self) -> str:
        """The result as a sentence."""
        if self.is_same:
            return splits.SAME_JOBS
        causes = listed([self._settings, "the data" if self.dataset else "", *_origins(self.provenance)])
        if self.data:
            others = [pair for pair in self.spec if not pair.name.startswith("/dataset/")]
            return f"{self.data} The jobs also differ in {counted(len(others), 'setting')}." if others else self.data
        epoch, checkpoint = self.epoch, self.checkpoint
        if checkpoint is not None and (epoch is None or checkpoint.epoch < epoch.epoch):
            statement = f"The weights after epoch {checkpoint.epoch} differ, first in {checkpoint.difference.tensor}"
        elif epoch is not None:
            labels = [describe(name).label for name in sorted(epoch.differs, key=_rank)]
            further = f" and {counted(len(labels) - _MAX_NAMED, 'more metric')}" if len(labels) > _MAX_NAMED else ""
            statement = f"Epoch {epoch.epoch} is the first that differs, in {', '.join(labels[:_MAX_NAMED])}{further}"
        else:
            statement = self._no_difference
            return f"{statement}. The jobs differ in {causes}." if causes else f"{statement}."
        if not causes:
            return f"{statement}, although spec, data and provenance are equal."
        return f"{statement}. The jobs differ in {causes}."

    @property
    def _settings(self) -> str:
        if len(self.spec) > 1:
            return f"{len(self.spec)} settings (below)"
        return dotted(self.spec[0].name) if self.spec else ""

    @property
    def _no_difference(self) -> str:
        """A sentence for jobs without a differing epoch."""
        if self.compared_epochs:
            return f"No difference in {counted(self.compared_epochs, 'epoch')}"
        for fork, original in ((self.a, self.b), (self.b, self.a)):
            if fork.parent_id == original.id and fork.start_epoch:
                names = [job.name or job.id for job in (fork, original)]
                return (
                    f"{names[0]} continues {names[1]} after epoch {fork.start_epoch}, so they have no epoch in common"
                )
        both_ended = {Status(job.status) for job in (self.a, self.b)} <= TERMINAL
        return "They have no epoch in common" if both_ended else "No epoch to compare yet"


def _rank(name: str) -> tuple[int, str]:
    """The order of metrics in a sentence: the most informative first, those of single layers last."""
    names = [*itertools.chain.from_iterable(KEY_METRICS.values()), *METRICS]
    return names.index(name) if name in names else len(names), name


def _origins(provenance: Sequence[Pair]) -> list[str]:
    """The differing entries of the provenance: up to two by name, more as a count."""
    if len(provenance) > 2:
        return [f"{len(provenance)} facts of the provenance (below)"]
    return [
        "the preprocessing" if pair.name == "preprocessing" else f"{pair.name} in the provenance" for pair in provenance
    ]


def find(database: Database, artifacts: ArtifactStore, pair: Callable[[Session], tuple[Job, Job]]) -> Differences:
    """Compare two jobs.

    Args:
        pair: reads the jobs.
    """
    with database.read() as session:
        first, second = pair(session)
        epochs_a, epochs_b = (lookup.epochs(session, job.id) for job in (first, second))
        checkpoints = [lookup.artifacts(session, job.id, ArtifactKind.CHECKPOINT) for job in (first, second)]
    spec = [pair for pair in _pairs(_hashed(first.resolved), _hashed(second.resolved)) if pair.name]
    provenance_a, provenance_b = first.provenance or {}, second.provenance or {}
    names = sorted({*provenance_a, *provenance_b} - {"dataset"}) if provenance_a and provenance_b else []
    epoch = results.first_difference(first, second, epochs_a, epochs_b)
    data = Pair("dataset", first.dataset_sha256, second.dataset_sha256)
    facts = [{name: getattr(job, name) for name in splits.COMPARED_FACTS} for job in (first, second)]
    return Differences(
        a=first,
        b=second,
        spec=spec,
        provenance=[
            Pair(n, provenance_a.get(n), provenance_b.get(n))
            for n in names
            if provenance_a.get(n) != provenance_b.get(n)
        ],
        dataset=data if data.a and data.b and data.a != data.b else None,
        epoch=epoch,
        checkpoint=_compare_checkpoints(artifacts, *checkpoints),
        compared_epochs=len({row.epoch for row in epochs_a} & {row.epoch for row in epochs_b}),
        is_same=epoch is None and splits.are_same(*facts),
        data=splits.data_difference(facts),
    )


def _hashed(resolved: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resolved.items() if name not in NOT_HASHED}


def _pairs(a: Any, b: Any, pointer: str = "") -> Iterator[Pair]:
    if isinstance(a, dict) and isinstance(b, dict) and a.get("type") == b.get("type"):  # not layers of two types
        for name in dict.fromkeys([*a, *b]):
            yield from _pairs(a.get(name), b.get(name), f"{pointer}/{name}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from _pairs(left, right, f"{pointer}/{index}")
    elif a != b:
        yield Pair(pointer, a, b)


def _compare_checkpoints(
    artifacts: ArtifactStore, checkpoints_a: Sequence[Artifact], checkpoints_b: Sequence[Artifact]
) -> CheckpointDifference | None:
    """Compare in order: a flipped bit may be rounded away again, so a comparison says nothing about the
    epochs in between."""
    by_epoch = {row.epoch: row for row in checkpoints_b}
    last_equal = None
    for row in checkpoints_a:
        if row.epoch not in by_epoch:
            continue
        difference = _compare(artifacts, row, by_epoch[row.epoch])
        if difference is not None:
            return CheckpointDifference(epoch=row.epoch, last_equal=last_equal, difference=difference)
        last_equal = row.epoch
    return None


def _compare(artifacts: ArtifactStore, a: Artifact, b: Artifact) -> TensorDifference | None:
    if a.sha256 == b.sha256:
        return None
    try:
        tensors_a, tensors_b = (tensors.read(artifacts.read(row.path, row.sha256)) for row in (a, b))
    except (ArtifactDamaged, ValueError):
        return None  # a running job removes its older ones
    return tensors.first_difference(tensors_a, tensors_b)
