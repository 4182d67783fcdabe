"""Reuse of an equal job's result at the submission of a new job."""

from __future__ import annotations

from dataclasses import replace

from service.datasets.builtins import reference_classifier_sha256
from service.jobs import worker_registry
from service.jobs.reuse import copies, sources
from service.jobs.reuse.copies import Copied
from service.jobs.submissions import Submission
from service.runtime.failpoints import reach
from service.spec.schema import Kind
from service.storage.artifacts import ArtifactDamaged, ArtifactStore
from service.storage.database import Database


def whole_result(database: Database, artifacts: ArtifactStore, new: Submission, new_id: str) -> Copied | None:
    """The result that a new job takes over, its files already in the job's folder; ``None``: train the job.

    Compares the provenance that a live worker would record for the job now.
    """
    spec = new.resolved
    classifier = reference_classifier_sha256(spec.dataset.name) if spec.kind is Kind.GAN else None
    with database.read() as session:
        provenances = [
            provenance | {"dataset": new.dataset_sha256} | ({"judge": classifier} if classifier else {})
            for provenance in worker_registry.provenances(session)
        ]
        source = sources.find(session, spec, provenances, owner=new.owner, whole_only=True)
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
    reach("reuse_stored")
    return copied
