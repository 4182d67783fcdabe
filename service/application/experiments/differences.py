"""Use case: say why two jobs have different results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from service.access.audit import Actor
from service.application.jobs import Jobs, Submitted
from service.application.ports import owner_of
from service.errors import ServiceError, UnusableParameter
from service.jobs.differences import results, tensors
from service.jobs.differences.results import EpochDifference
from service.jobs.differences.tensors import TensorDifference
from service.jobs.queries import lookup
from service.jobs.request_bodies import Investigation
from service.jobs.submissions import IdempotencyKey
from service.spec import validation
from service.spec.metric_info import METRICS, describe
from service.spec.validation import NOT_HASHED
from service.states import TERMINAL, Status
from service.storage.artifacts import ArtifactDamaged, ArtifactKind, ArtifactStore
from service.storage.database import Database
from service.storage.tables import Artifact, Job
from service.sweeps import queries
from service.wording import counted, listed

_SHOWN: Final = 3
"""The metrics that a sentence names."""
_FIRST: Final = ("val_accuracy", "val_loss", "train_loss", "frechet_distance", "g_loss", "d_loss")


@dataclass(frozen=True, slots=True)
class Pair:
    """Something in which the jobs differ: its name, and what each has."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointDifference:
    """The first kept checkpoints of one epoch that differ."""

    epoch: int
    last_equal: int | None
    """The last epoch before it whose checkpoints are equal, as far as both are kept."""
    difference: TensorDifference


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """All that is stored in which two jobs differ."""

    a: Job
    b: Job
    spec: Sequence[Pair]
    """By JSON pointer."""
    provenance: Sequence[Pair]
    dataset: Pair | None
    epoch: EpochDifference | None
    checkpoint: CheckpointDifference | None
    compared_epochs: int

    @property
    def sentence(self) -> str:
        """The result as a sentence."""
        causes = listed([self._settings, "the data" if self.dataset else "", *_origins(self.provenance)])
        at, kept = self.epoch, self.checkpoint
        if kept is not None and (at is None or kept.epoch < at.epoch):
            what = f"The weights after epoch {kept.epoch} differ, first in {kept.difference.tensor}"
        elif at is not None:
            labels = [describe(name).label for name in sorted(at.differs, key=_rank)]
            more = f" and {counted(len(labels) - _SHOWN, 'more metric')}" if len(labels) > _SHOWN else ""
            what = f"Epoch {at.epoch} is the first that differs, in {', '.join(labels[:_SHOWN])}{more}"
        else:
            what = self._nothing
            return f"{what}. The jobs differ in {causes}." if causes else f"{what}."
        if not causes:
            return f"{what}, although spec, data and provenance are equal."
        return f"{what}. The jobs differ in {causes}."

    @property
    def _settings(self) -> str:
        if len(self.spec) > 1:
            return f"{len(self.spec)} settings (below)"
        return self.spec[0].name.removeprefix("/") if self.spec else ""

    @property
    def _nothing(self) -> str:
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
    """The order in which a sentence names metrics: those that tell most first, those of single layers last."""
    names = [*_FIRST, *METRICS]
    return names.index(name) if name in names else len(names), name


def _origins(provenance: Sequence[Pair]) -> list[str]:
    """The differing entries of the provenance: up to two by name, more as a count."""
    if len(provenance) > 2:
        return [f"{len(provenance)} facts of the provenance (below)"]
    return [
        "the preprocessing" if pair.name == "preprocessing" else f"{pair.name} in the provenance" for pair in provenance
    ]


class NotComparable(ServiceError, ValueError):
    """The jobs have no difference that retraining could explain."""


def request(jobs: Jobs, document: Any, *, by: Actor | None, idempotency: IdempotencyKey | None) -> Submitted:
    """Submit a job that retrains two others side by side until they diverge.

    Args:
        document: an ``Investigation`` as sent.

    Raises:
        JobNotFound: one does not exist.
        NotComparable: their results are equal, or there are none yet.
    """
    earlier = Submitted.earlier(jobs.database, idempotency, owner_of(by))
    if earlier is not None:
        return earlier
    asked = validation.read_body(Investigation, document)
    found = find(jobs.database, jobs.artifacts, asked.a, asked.b, owner=owner_of(by))
    if found.a.kind != found.b.kind:
        raise NotComparable("a classifier and a GAN cannot be compared")
    if found.epoch is None and found.checkpoint is None:
        raise NotComparable("their results are equal in every epoch that both have completed")
    return jobs.investigate(found.a, found.b, by=by, idempotency=idempotency)


def find(database: Database, artifacts: ArtifactStore, a: str, b: str, *, owner: str | None) -> Differences:
    """Compare two jobs. Of a trial (``swp_…:3``, or a sweep's best one), it is the job with the seed of the other.

    Raises:
        JobNotFound, SweepNotFound, TrialNotFound: one does not exist, or belongs to another owner.
        UnusableParameter: a trial has no jobs.
    """
    with database.read() as session:
        of_seed = [_by_seed(session, side, name, owner) for side, name in (("a", a), ("b", b))]
        common = next((seed for seed in of_seed[0] if seed in of_seed[1]), "")
        chosen = [jobs.get(common) or next(iter(jobs.values())) for jobs in of_seed]
        first, second = (lookup.get(session, job_id, owner=owner) for job_id in chosen)
        of_a, of_b = (lookup.epochs(session, job.id) for job in (first, second))
        kept = [lookup.artifacts(session, job.id, ArtifactKind.CHECKPOINT) for job in (first, second)]
    spec = [pair for pair in _pairs(_hashed(first.resolved), _hashed(second.resolved)) if pair.name]
    before, now = first.provenance or {}, second.provenance or {}
    names = sorted({*before, *now} - {"dataset"}) if before and now else []
    epoch = results.first_difference(first, second, of_a, of_b)
    data = Pair("dataset", first.dataset_sha256, second.dataset_sha256)
    return Differences(
        a=first,
        b=second,
        spec=spec,
        provenance=[Pair(n, before.get(n), now.get(n)) for n in names if before.get(n) != now.get(n)],
        dataset=data if data.a and data.b and data.a != data.b else None,
        epoch=epoch,
        checkpoint=_compare_checkpoints(artifacts, *kept),
        compared_epochs=len({row.epoch for row in of_a} & {row.epoch for row in of_b}),
    )


def _by_seed(session: Session, side: str, name: str, owner: str | None) -> Mapping[str, str]:
    if not queries.names_trial(name):
        job = lookup.get(session, name, owner=owner)
        return {str(job.resolved["seed"]): job.id}
    jobs = queries.jobs_of_trial(session, name, owner=owner)
    if not jobs:
        raise UnusableParameter(side, "the trial has no jobs: its settings are not valid")
    return jobs


def _hashed(resolved: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resolved.items() if name not in NOT_HASHED}


def _pairs(a: Any, b: Any, pointer: str = "") -> Iterator[Pair]:
    if isinstance(a, dict) and isinstance(b, dict):
        for name in dict.fromkeys([*a, *b]):
            yield from _pairs(a.get(name), b.get(name), f"{pointer}/{name}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for place, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from _pairs(one, other, f"{pointer}/{place}")
    elif a != b:
        yield Pair(pointer, a, b)


def _compare_checkpoints(
    artifacts: ArtifactStore, of_a: Sequence[Artifact], of_b: Sequence[Artifact]
) -> CheckpointDifference | None:
    """Compare in order: a flipped bit may be rounded away again, so nothing can be said of epochs in between."""
    others = {row.epoch: row for row in of_b}
    last_equal = None
    for row in of_a:
        if row.epoch not in others:
            continue
        difference = _compare(artifacts, row, others[row.epoch])
        if difference is not None:
            return CheckpointDifference(epoch=row.epoch, last_equal=last_equal, difference=difference)
        last_equal = row.epoch
    return None


def _compare(artifacts: ArtifactStore, a: Artifact, b: Artifact) -> TensorDifference | None:
    if a.sha256 == b.sha256:
        return None
    try:
        of_a, of_b = (tensors.read(artifacts.read(row.path, row.sha256)) for row in (a, b))
    except (ArtifactDamaged, ValueError):
        return None  # a running job removes its older ones
    return tensors.first_difference(of_a, of_b)
