"""Jobs, datasets, sweeps and objects of features without an owner: they were created while keys were not required."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session, defer

from service import hooks
from service.access import audit, keys, owners
from service.access.audit import Actor, AuditAction
from service.errors import OwnerNotFound
from service.states import TERMINAL
from service.storage.database import Database, locking, now_ms
from service.storage.sweep_tables import Sweep
from service.storage.tables import Idempotency, Job, Upload
from service.wording import counted, listed


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptionCounts:
    """Numbers of jobs, datasets (by name), sweeps and more that have no owner, or that were given to one."""

    jobs: int
    datasets: int
    sweeps: int
    of_features: Mapping[str, int]
    """By the name of one."""

    @property
    def _by_name(self) -> dict[str, int]:
        return {"job": self.jobs, "dataset": self.datasets, "sweep": self.sweeps, **self.of_features}

    def __bool__(self) -> bool:
        return any(self._by_name.values())

    def __str__(self) -> str:
        return listed(counted(number, name) for name, number in self._by_name.items() if number)

    def document(self) -> dict[str, int]:
        """As JSON: by the plural of each name."""
        return {f"{name}s": number for name, number in self._by_name.items()}


def count(session: Session) -> AdoptionCounts:
    """What has no owner."""
    unowned = (Upload.owner == "", Upload.deleted_ms.is_(None))
    return AdoptionCounts(
        jobs=session.scalar(select(func.count()).select_from(Job).where(Job.owner.is_(None))) or 0,
        datasets=session.scalar(select(func.count(Upload.name.distinct())).where(*unowned)) or 0,
        sweeps=session.scalar(select(func.count()).select_from(Sweep).where(Sweep.owner.is_(None))) or 0,
        of_features={item.name: item.count(session) for item in hooks.unowned()},
    )


def adopt(
    database: Database, owner: str, *, also_known: Collection[str] = (), by: Actor | None = None
) -> AdoptionCounts:
    """Give everything that has no owner to one, in one transaction. Objects with an owner are not changed.

    The service may be running. If the owner already has the same data under the same name, and an unfinished job uses
    the copy without an owner, that copy stays: repeat the call when the job has ended. Adoption is idempotent.

    Args:
        also_known: owners whose keys are not in the database (``TAPELINE_API_KEYS``).

    Returns:
        What the owner was given.

    Raises:
        OwnerNotFound: no valid key has this owner, so the jobs would be inaccessible.
    """
    with database.write() as session:
        known_owners = keys.owners(session) | set(also_known)
        if owner not in known_owners:
            raise OwnerNotFound(owner, owners.similar(session, owner, known_owners))
        # Sweeps and datasets first: a transaction that creates jobs of a sweep, or jobs that need a dataset,
        # locks it until its commit, so that the later statements see those jobs.
        sweeps = session.scalars(locking(select(Sweep.id).where(Sweep.owner.is_(None)).order_by(Sweep.id)))
        sweep_ids = sweeps.all()
        datasets = count(session).datasets
        session.execute(update(Sweep).where(Sweep.owner.is_(None)).values(owner=owner))
        _transfer_datasets(session, owner)
        hooks.adopted(session, owner)
        # In the order of ids, as every transaction that locks several jobs.
        session.execute(locking(select(Job.id).where(Job.owner.is_(None)).order_by(Job.id))).all()
        jobs = session.scalars(
            update(Job).where(Job.owner.is_(None)).values(owner=owner).returning(Job.id),
            execution_options={"synchronize_session": False},
        ).all()
        # Requests can be repeated with a key. If the owner has used the idempotency key, that response is kept.
        owned = select(Idempotency.key).where(Idempotency.owner == owner)
        session.execute(delete(Idempotency).where(Idempotency.owner == "", Idempotency.key.in_(owned)))
        session.execute(update(Idempotency).where(Idempotency.owner == "").values(owner=owner))
        left = count(session).datasets
        of_features = {item.name: item.adopt(session, owner) for item in hooks.unowned()}
        adopted = AdoptionCounts(
            jobs=len(jobs), datasets=datasets - left, sweeps=len(sweep_ids), of_features=of_features
        )
        if adopted:
            audit.record(session, by, AuditAction.ADOPT, owner, **adopted.document())
    return adopted


def _transfer_datasets(session: Session, owner: str) -> None:
    """Change the owner of datasets. Data that the owner already has under the same name are not stored twice."""
    sweeps = session.scalars(select(Sweep).where(Sweep.owner == owner).options(defer(Sweep.state))).all()
    query = locking(select(Upload).where(Upload.owner == "").order_by(Upload.id))
    for upload in session.scalars(query).all():
        same_data = (Upload.owner == owner, Upload.name == upload.name, Upload.sha256 == upload.sha256)
        twin = session.scalar(locking(select(Upload).where(*same_data)))
        if twin is None:
            upload.owner = owner
            continue
        unfinished = (Job.upload_id == upload.id, Job.status.not_in(TERMINAL))
        if session.scalar(select(Job.id).where(*unfinished).limit(1)) is not None:
            continue  # its training may be about to open the files; a later call finds the job ended
        session.execute(update(Job).where(Job.upload_id == upload.id).values(upload_id=twin.id))
        for sweep in sweeps:
            if sweep.data.get("upload_id") == upload.id:
                sweep.data = sweep.data | {"upload_id": twin.id}
        if upload.deleted_ms is None:
            twin.deleted_ms = None
            twin.created_ms = max(twin.created_ms, upload.created_ms)  # the newest upload is what the name means
            upload.deleted_ms = session.scalar(select(now_ms()))  # the scheduler removes it, with its files
    session.flush()
