"""The invariants I1 to I12 that must hold after every fault, in one function."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import func, select

from service.jobs import events, owner_queue
from service.jobs.queries import lookup
from service.states import TERMINAL, JobKind, Status
from service.storage.artifacts import ID_FILE, ArtifactDamaged, ArtifactKind, ArtifactStore
from service.storage.database import Database
from service.storage.owner_tables import OwnerQueue
from service.storage.stores import ArtifactFolder
from service.storage.tables import Job


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The results of an undisturbed job."""

    epochs: Sequence[tuple[int, Mapping[str, Any], str | None]]
    result_digest: str
    final_sha256: str

    @classmethod
    def of(cls, database: Database, job_id: str) -> Reference:
        """Read the results of an undisturbed job."""
        with database.read() as session:
            job = lookup.get(session, job_id)
            assert (job.status, job.lease) == (Status.SUCCEEDED, 1), "the reference itself was disturbed"
            assert job.result_digest is not None
            return cls(
                epochs=[(row.epoch, row.metrics, row.samples_digest) for row in lookup.epochs(session, job_id)],
                result_digest=job.result_digest,
                final_sha256=lookup.checkpoint(session, job, "latest").sha256,
            )


def owner_counts(database: Database) -> tuple[dict[str, tuple[int, int, int]], dict[str, tuple[int, int, int]]]:
    """Running, queued and urgent of each owner: as kept, and as counted."""
    columns = (func.coalesce(Job.owner, ""), Job.status, func.count(), func.max(Job.priority))
    counting = select(*columns).where(Job.status.in_((Status.QUEUED, Status.RUNNING))).group_by(Job.owner, Job.status)
    counted: dict[str, tuple[int, int, int]] = {}
    with database.read() as session:
        rows = session.scalars(select(OwnerQueue)).all()
        for owner, status, count, priority in session.execute(counting):
            running, queued, urgent = counted.get(owner, (0, 0, 0))
            if status == Status.QUEUED:
                queued, urgent = count, priority if priority >= owner_queue.FIRST_URGENT else 0
            else:
                running = count
            counted[owner] = (running, queued, urgent)
    return {row.owner: (row.running, row.queued, row.urgent) for row in rows if row.running or row.queued}, counted


def check(
    database: Database,
    artifacts: ArtifactStore,
    accepted: Collection[str],
    references: Reference | Mapping[str, Reference] | None = None,
) -> None:
    """Assert that every accepted job was trained once and completely, with the reference's bits, and that
    nothing else is left.

    Args:
        accepted: ids of all jobs whose submission was confirmed.
        references: the results that each job must have, or those of each job by its id; ``None`` if a job may have
            ended without success.
    """
    kept, counted = owner_counts(database)
    assert kept == counted, "I12: the counts of an owner are not those of its jobs"
    with database.read() as session:
        jobs = session.scalars(select(Job)).all()
        assert sorted(job.id for job in jobs) == sorted(accepted), (
            "I1: every accepted job has one row, and no other has"
        )
        recorded_paths: set[str] = set()
        for job in jobs:
            label = f"{job.id} ({job.status}, attempt {job.attempt}, lease {job.lease})"
            assert job.status in TERMINAL, f"I2: {label} has not ended"
            log = events.read(session, job.id, limit=100_000)
            kinds = [event.type for event in log]
            # A job that was retried has several end events.
            retried = [event for event in log if event.type == "status" and event.data["reason"] == "retried"]
            assert kinds.count("end") == 1 + len(retried), f"I3: {label} ended {kinds.count('end')} times"
            after_end = log[len(kinds) - kinds[::-1].index("end") :]
            assert all(event.type == "status" and event.data["reason"] == "changed" for event in after_end), (
                f"I3: {label} continues after its end"
            )
            assert [event.seq for event in log] == list(range(1, job.last_seq + 1)), f"I7: {label} has holes in its log"
            codes = [event.data["code"] for event in log if event.type == "log"]
            assert "determinism_violation" not in codes, f"I10: {label} was trained again with other bits"
            rows = lookup.epochs(session, job.id)
            trained = 0 if job.kind == JobKind.PREDICTION else job.epoch
            assert [row.epoch for row in rows] == list(range(1, trained + 1)), f"I4: {label} lacks or repeats an epoch"
            announced_epochs = [event.data["epoch"] for event in log if event.type == "metrics"]
            assert announced_epochs == [row.epoch for row in rows], f"I4: {label} told of other epochs than it has"
            assert job.lease_owner is None, f"I8: {label} has ended and is held"
            reference = references[job.id] if isinstance(references, Mapping) else references
            if reference is not None:
                assert job.status == Status.SUCCEEDED, f"I2: {label} did not succeed: {job.error}"
                epochs = [(row.epoch, row.metrics, row.samples_digest) for row in rows]
                assert epochs == list(reference.epochs), f"I5: {label} gave other numbers"
                assert job.result_digest == reference.result_digest, f"I6: {label} has another result"
                assert lookup.checkpoint(session, job, "latest").sha256 == reference.final_sha256, (
                    f"I6: {label}: weights"
                )
            files = lookup.artifacts(session, job.id)
            assert job.size_bytes == sum(row.size_bytes for row in files), (
                f"I11: {label} counts other bytes than its rows"
            )
            for row in files:
                try:
                    artifacts.read(row.path, row.sha256)
                except ArtifactDamaged as error:
                    raise AssertionError(f"I9: {label}: a row has no file, or another one: {error}") from error
                recorded_paths.add(row.path)
            checkpoints = lookup.artifacts(session, job.id, ArtifactKind.CHECKPOINT)
            assert checkpoints or not trained, f"I9: {label} has epochs and no checkpoint"

    def paths(job_ids: Sequence[str]) -> dict[str, set[str]]:
        with database.read() as session:
            return lookup.paths(session, job_ids)

    old = [replace(item, age_s=1e9) for item in artifacts.stored()]
    artifacts.remove([item.path for item in artifacts.orphans(paths, older_than_s=0, among=old)])
    remaining_files = {item.path for item in artifacts.stored()}
    if isinstance(artifacts, ArtifactFolder):
        remaining_files = {
            str(path.relative_to(artifacts.root)) for path in artifacts.root.rglob("*") if path.is_file()
        }
    assert remaining_files - {ID_FILE} == recorded_paths, "I9: a file that no row names outlived the cleanup"
