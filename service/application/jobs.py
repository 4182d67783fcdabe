"""Use cases of jobs: submit, fork, reproduce, compare, and control. Each accepts the actor that requests it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Self

from service import kinds
from service.access.audit import Actor, owner_of
from service.application.kinds import check as check_by_kind
from service.application.specs import Forecast, SpecChecks
from service.datasets.builtins import reference_classifier_sha256
from service.datasets.errors import DatasetError
from service.datasets.info import DatasetInfo
from service.datasets.shapes import shape_of
from service.errors import (
    AdmissionRefused,
    Fault,
    IdempotencyConflict,
    JobNotFound,
    ServiceError,
    SpecError,
    StorageQuotaExceeded,
)
from service.jobs import actions, submissions, worker_registry
from service.jobs.differences import explanation
from service.jobs.queries import lookup, names
from service.jobs.request_bodies import ForkRequest, Investigation
from service.jobs.reuse import copies, sources
from service.jobs.reuse.copies import Copied
from service.jobs.reuse.sources import is_verified
from service.jobs.submissions import IdempotencyKey, Origin, Submission
from service.runtime.failpoints import failpoint
from service.schema import costs
from service.schema.layer_shapes import Network
from service.spec import validation
from service.spec.schema import Reuse, Spec, is_training
from service.spec.splits import Split
from service.spec.validation import StoredSpec
from service.states import Action, DatasetKind, Status, Task
from service.storage import ids
from service.storage.artifact_rows import use_current
from service.storage.artifacts import ArtifactDamaged, ArtifactKind, ArtifactStore
from service.storage.database import Database
from service.storage.tables import Artifact, Job
from service.sweeps import queries
from service.wording import counted

Admit = Callable[[str | None, int, int], None]
"""Checks the quotas of an owner before this many further jobs are stored, whose files are expected to take this many
bytes; raises ``AdmissionRefused`` if one is exhausted."""


def admit_all(owner: str | None, count: int, expected_bytes: int) -> None:
    """Admit jobs without a quota."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """The response to a submission. ``replayed`` means that an earlier request with the same key stored the job."""

    answer: dict[str, Any]
    replayed: bool

    @classmethod
    def earlier(cls, database: Database, idempotency: IdempotencyKey | None, owner: str | None) -> Self | None:
        """The stored response of an earlier request with this key, if any; it precedes any check."""
        if idempotency is None:
            return None
        with database.read() as session:
            answer = submissions.replay(session, idempotency, owner=owner)
        return cls(answer, replayed=True) if answer is not None else None


class NotComparable(ServiceError, ValueError):
    """The jobs have no difference that retraining could explain."""

    code = "not_comparable"


_VERBS: Final = {
    Action.CANCEL: actions.cancel,
    Action.PAUSE: actions.pause,
    Action.RESUME: actions.resume,
    Action.RETRY: actions.retry,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """Operations on jobs.

    Attributes:
        admit: called before jobs are stored.
        wake_up: notifies the workers of a queued job; they also poll the database.
        represent: builds the response to a submission, which is stored with its idempotency key.
        max_owner_bytes: maximum bytes of the files of all jobs of an owner; 0: no limit.
        verified_share: fraction of jobs with a reusable result that a worker checks by training an epoch again.
    """

    database: Database
    artifacts: ArtifactStore
    specs: SpecChecks
    admit: Admit = admit_all
    wake_up: Callable[[str], None] = lambda job_id: None
    represent: Callable[[Job], dict[str, Any]] = lambda job: {"id": job.id}
    max_owner_bytes: int = 0
    verified_share: float = 0.0

    def submit(self, document: Any, *, by: Actor | None = None, idempotency: IdempotencyKey | None = None) -> Submitted:
        """Store a new job, or one job per fold if the spec has folds.

        Args:
            document: the spec as sent.

        Returns:
            The job. For several folds, the first job, with the ids of all as ``fold_jobs``.

        Raises:
            SpecError: lists every fault.
            AdmissionRefused, StorageQuotaExceeded: a quota of the owner is exhausted.
            IdempotencyConflict: the key was used with another body.
        """
        owner = owner_of(by)
        try:
            new = self._new(document, owner)
            self.admit(owner, len(new), sum(submission.expected_bytes for submission in new))
        except (SpecError, AdmissionRefused):
            # A repeated request gets the response of the first one, even if something has changed since.
            earlier = Submitted.earlier(self.database, idempotency, owner)
            if earlier is None:
                raise
            return earlier
        return self._store([self._add_copied_result(submission) for submission in new], idempotency, by)

    def forecast(self, document: Any, *, by: Actor | None = None) -> Forecast:
        """Check a spec and estimate its cost without storing anything.

        Raises:
            SpecError: see ``submit``.
        """
        owner = owner_of(by)
        if not validation.trains(document):
            checked = check_by_kind(self.specs, document, owner)
            return checked.forecast(self.specs.notes_on_data(checked.dataset, owner))
        return self.specs.forecast(document, owner)

    def _new(self, document: Any, owner: str | None) -> list[Submission]:
        """The checked submissions of a spec."""
        if not validation.trains(document):
            return [check_by_kind(self.specs, document, owner).submission(document, owner)]
        spec, data, networks = self.specs.check(document, owner)
        specs = _expand(document, spec)
        group = ids.new_id("folds") if len(specs) > 1 else None
        return [_submission(sent, resolved, owner, data, networks, fold_group=group) for sent, resolved in specs]

    def _store(self, new: Sequence[Submission], idempotency: IdempotencyKey | None, by: Actor | None) -> Submitted:
        """Store jobs, some of which have files already; the files of those that are not stored are removed."""
        with_files = [item.id for item in new if item.id is not None and (item.copied or item.origin)]
        try:
            answer, replayed = submissions.submit(
                self.database,
                new,
                idempotency=idempotency,
                represent=self._represent_all,
                by=by,
                at_most=self.max_owner_bytes,
            )
        except (IdempotencyConflict, JobNotFound, SpecError, StorageQuotaExceeded):
            self._discard(with_files)
            raise
        # After any other error, the jobs may have been stored; the scheduler removes files without a row.
        failpoint("submitted")
        if replayed:
            self._discard(with_files)
        else:
            ended = {item.id for item in new if item.copied}
            for job_id in answer.get("fold_jobs", [answer["id"]]):
                if job_id not in ended:
                    self.wake_up(job_id)
        return Submitted(answer, replayed)

    def _add_copied_result(self, new: Submission) -> Submission:
        """The submission with the result of an equal job, if there is one that it may take over."""
        spec = new.resolved
        if not is_training(spec) or spec.reuse is Reuse.NEVER:
            return new
        new_id = ids.new_id("job")
        if is_verified(new_id, self.verified_share):
            return replace(new, id=new_id)  # the worker takes it over, after it has trained an epoch again
        stored = StoredSpec.of(spec)
        copied = _whole_result(self.database, self.artifacts, new, spec, stored, new_id)
        return replace(new, id=new_id, stored=stored, copied=copied)

    def _discard(self, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            self.artifacts.remove_folder(job_id)

    def _represent_all(self, jobs: Sequence[Job]) -> dict[str, Any]:
        fold_jobs = {"fold_jobs": [job.id for job in jobs]} if len(jobs) > 1 else {}
        return self.represent(jobs[0]) | fold_jobs

    def fork(
        self, job_id: str, document: Any, *, by: Actor | None = None, idempotency: IdempotencyKey | None = None
    ) -> Submitted:
        """Store a new job that continues from a checkpoint of another job.

        Args:
            document: a ``ForkRequest`` as sent.

        Raises:
            SpecError: with pointers into ``document``.
            ArtifactDamaged: the checkpoint cannot be read.
        """
        owner = owner_of(by)
        earlier = Submitted.earlier(self.database, idempotency, owner)
        if earlier is not None:
            return earlier
        request = validation.read_body(ForkRequest, document)
        with self.database.read() as session:
            parent = lookup.get(session, job_id, owner=owner)
            actions.require(parent, Action.FORK)
            name = names.of_fork(session, parent, owner=owner) if "name" not in request.overrides else None
        priority = min(parent.priority, self.specs.max_priority(owner))
        budget = {"seconds": parent.budget_seconds} if parent.budget_seconds is not None else None
        metadata = {"name": name, "tags": parent.tags, "priority": priority, "budget": budget}

        def submit(checkpoint: Artifact) -> Submitted:
            spec, data, networks = self._derive(
                parent, metadata, request.overrides, owner=owner, epoch=checkpoint.epoch
            )
            spec = spec.model_copy(update={"reuse": Reuse.NEVER})
            new = _submission(spec.model_dump(mode="json"), spec, owner, data, networks)
            new = replace(new, expected_bytes=new.expected_bytes + checkpoint.size_bytes)  # the start is kept, too
            return self._submit_copy(new, parent, checkpoint, idempotency, by, reproduces=False)

        def find() -> Artifact:
            with self.database.read() as session:
                return lookup.checkpoint(session, lookup.get(session, job_id, owner=owner), request.checkpoint)

        return use_current(find, submit)

    def reproduce(
        self, job_id: str, *, by: Actor | None = None, idempotency: IdempotencyKey | None = None
    ) -> Submitted:
        """Store a new job that repeats the training of a succeeded one and compares every epoch.

        Raises:
            ArtifactDamaged: the checkpoint that the original started from cannot be read.
        """
        owner = owner_of(by)
        earlier = Submitted.earlier(self.database, idempotency, owner)
        if earlier is not None:
            return earlier
        with self.database.read() as session:
            original = lookup.get(session, job_id, owner=owner)
            actions.require(original, Action.REPRODUCE)
            start = lookup.checkpoint(session, original, str(original.start_epoch)) if original.start_epoch else None
            name = names.of_reproduction(session, original, owner=owner)
        priority = min(original.priority, self.specs.max_priority(owner))
        metadata = {"name": name, "tags": original.tags, "priority": priority, "reuse": Reuse.NEVER}
        new = _repeat_submission(original, metadata, owner)
        return self._submit_copy(new, original, start, idempotency, by, reproduces=True)

    def investigate(
        self, document: Any, *, by: Actor | None = None, idempotency: IdempotencyKey | None = None
    ) -> Submitted:
        """Store a new job that retrains two others side by side, to find where they diverge.

        Args:
            document: an ``Investigation`` as sent.

        Raises:
            JobNotFound: one does not exist.
            NotComparable: their results are equal, or do not exist yet.
        """
        owner = owner_of(by)
        earlier = Submitted.earlier(self.database, idempotency, owner)
        if earlier is not None:
            return earlier
        request = validation.read_body(Investigation, document)
        found = explanation.find(
            self.database, self.artifacts, partial(queries.pair, a=request.a, b=request.b, owner=owner)
        )
        if found.a.kind != found.b.kind:
            a, b = (kinds.of(job.kind).title for job in (found.a, found.b))
            raise NotComparable(f"a {a} and a {b} cannot be compared")
        if found.epoch is None and found.checkpoint is None:
            raise NotComparable("their results are equal in every epoch that both have completed")
        self.admit(owner, 1, 0)  # it stores no files
        title = " and ".join(job.name or job.id[-6:].lower() for job in (found.a, found.b))[:180]
        priority = min(found.a.priority, self.specs.max_priority(owner))
        metadata = {"name": f"why {title} differ", "tags": [], "priority": priority, "reuse": Reuse.NEVER}
        new = _repeat_submission(found.a, metadata, owner)
        return self._store([replace(new, investigates=(found.a, found.b), expected_bytes=0)], idempotency, by)

    def act(self, job_id: str, action: Action, *, by: Actor | None = None) -> Job:
        """Cancel, pause, resume or retry a job."""
        job = _VERBS[action](self.database, job_id, owner=owner_of(by), by=by)
        if job.status == Status.QUEUED:
            self.wake_up(job_id)
        return job

    def delete(self, job_id: str, *, by: Actor | None = None) -> None:
        """Delete an ended job with all its files."""
        actions.remove(self.database, job_id, owner=owner_of(by), by=by)
        self.artifacts.remove_folder(job_id)

    def _derive(
        self, parent: Job, metadata: dict[str, Any], overrides: dict[str, Any], *, owner: str | None, epoch: int
    ) -> tuple[Spec, DatasetInfo, Sequence[Network]]:
        """The spec of a fork, its dataset (the parent's, or another one of the same shape), and its networks.

        Args:
            metadata: the fork's name, tags, priority and budget, unless the overrides set them.

        Raises:
            SpecError: with pointers into the request.
        """
        try:
            spec = validation.derive(parent.resolved | metadata, overrides, epoch=epoch)
            parent_data = self._data_of(parent)
            same_dataset = "dataset" not in overrides
            document = spec.model_dump(mode="json")
            spec, data, networks = self.specs.check(document, owner, parent_data if same_dataset else None)
            if parent_data is not None and (detail := _explain_shape_mismatch(parent_data, data)):
                raise SpecError([Fault(pointer="#/dataset/name", detail=detail, code="wrong_shape")])
            return spec, data, networks
        except SpecError as error:
            sent = validation.relocate_faults(error, overrides)
            raise SpecError(
                [replace(fault, pointer="#/overrides" + fault.pointer.removeprefix("#")) for fault in sent.faults],
                total=sent.total,
            ) from error

    def _data_of(self, job: Job) -> DatasetInfo | None:
        try:
            return self.specs.datasets.of_job(job)
        except DatasetError:
            return None

    def _submit_copy(
        self,
        new: Submission,
        parent: Job,
        checkpoint: Artifact | None,
        idempotency: IdempotencyKey | None,
        by: Actor | None,
        *,
        reproduces: bool,
    ) -> Submitted:
        """Store a job that is derived from another one, with a copy of the checkpoint that it starts from."""
        self.admit(new.owner, 1, new.expected_bytes)
        start, new_id = None, ids.new_id("job")
        if checkpoint is not None:
            start = self.artifacts.copy(
                checkpoint.path, checkpoint.sha256, job_id=new_id, kind=ArtifactKind.CHECKPOINT, epoch=checkpoint.epoch
            )
        new = replace(new, id=new_id, origin=Origin(parent=parent, start=start, reproduces=reproduces))
        return self._store([new], idempotency, by)


def _submission(
    document: Any,
    spec: Spec,
    owner: str | None,
    data: DatasetInfo,
    networks: Sequence[Network],
    fold_group: str | None = None,
) -> Submission:
    if fold_group is not None:  # ``data`` has the split of the first fold
        data = data.divided(Split.of(spec.model_dump(mode="json", include={"seed", "dataset"})))
    shape = shape_of(data)
    return Submission(
        spec=document,
        resolved=spec,
        steps=costs.total_steps(spec, shape.train_count),
        expected_bytes=costs.expected_bytes(spec, networks, shape),
        owner=owner,
        upload_id=data.upload_id,
        dataset_sha256=data.pinned_sha256 or data.sha256,
        fold_group=fold_group,
    )


def _repeat_submission(job: Job, metadata: dict[str, Any], owner: str | None) -> Submission:
    """A submission with a job's spec and data; ``metadata`` replaces fields that do not affect the result. It has no
    budget, since it repeats the whole training."""
    return Submission(
        spec={name: value for name, value in job.spec.items() if name != "budget"},
        resolved=validation.read_resolved(job.resolved | metadata | {"budget": None}),
        steps=job.steps,
        owner=owner,
        upload_id=job.upload_id,
        dataset_sha256=job.dataset_sha256,
        expected_bytes=max(job.expected_bytes, job.size_bytes),
    )


def _explain_shape_mismatch(original: DatasetInfo, data: DatasetInfo) -> str | None:
    """Why a checkpoint that was trained on ``original`` cannot continue with ``data``; ``None`` if it can."""
    if original.kind is not data.kind or original.image_shape != data.image_shape:
        return f"its examples are {_describe(data)}; those of the checkpoint's dataset are {_describe(original)}"
    columns, expected = ([(column["name"], column["type"]) for column in info.columns] for info in (data, original))
    if columns != expected:
        described = ", ".join(f"{name} ({kind})" for name, kind in expected[:20])
        return f"its columns differ from those of the checkpoint's dataset: {described}"
    if Task.REGRESSION is original.task is data.task and original.target != data.target:
        return f"its target is {data.target}; the checkpoint predicts {original.target}, in its unit"
    return None


def _describe(data: DatasetInfo) -> str:
    if data.kind is DatasetKind.TABLE:
        return f"rows of {counted(len(data.columns), 'column')}"
    return "images of " + " x ".join(map(str, data.image_shape))


_MAX_NAME: Final = 200


def _expand(document: Any, spec: Spec) -> list[tuple[Any, Spec]]:
    """The spec of each job, as sent and resolved. A spec without ``folds``, or with a ``fold``, is a single job."""
    folds = spec.dataset.folds
    if folds is None or spec.dataset.fold is not None:
        return [(document, spec)]
    jobs = []
    for fold in range(folds):
        name = f"fold {fold + 1} of {folds}"
        if spec.name:
            name = f"{spec.name[: _MAX_NAME - len(name) - 3]} ({name})"
        sent = document | {"name": name, "dataset": document["dataset"] | {"fold": fold}}
        data = spec.dataset.model_copy(update={"fold": fold})
        jobs.append((sent, spec.model_copy(update={"name": name, "dataset": data})))
    return jobs


def _whole_result(
    database: Database, artifacts: ArtifactStore, new: Submission, spec: Spec, stored: StoredSpec, new_id: str
) -> Copied | None:
    """The result that a new job takes over, its files already in the job's folder; ``None``: train the job.

    Compares the provenance that a live worker would record for the job now.
    """
    is_scored = kinds.of(spec.kind).has_reference_classifier
    classifier = reference_classifier_sha256(spec.dataset.name) if is_scored else None
    with database.read() as session:
        provenances = [
            provenance | {"dataset": new.dataset_sha256} | ({"reference_classifier": classifier} if classifier else {})
            for provenance in worker_registry.provenances(session)
        ]
        source = sources.find(session, spec, stored, provenances, owner=new.owner, whole_only=True)
        if source is None:
            return None
        try:
            files, copied = sources.files_of(session, source), copies.read(session, source)
        except ArtifactDamaged:
            return None
    try:
        copied = replace(copied, files=artifacts.copy_all(files, job_id=new_id, lease=0))
    except (ArtifactDamaged, OSError):
        return None  # the worker searches for another job, or trains
    failpoint("reuse_stored")
    return copied
