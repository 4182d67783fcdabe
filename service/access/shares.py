"""What a link shows to whoever has it: one job, sweep or comparison, and never the content of a dataset."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.access.keys import Identity
from service.storage.tables import Job

_ID: Final = re.compile(r"\b(?:job|swp)_[0-9A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Shared:
    """A valid link: what it shows, and the identity that may read it."""

    path: str
    identity: Identity
    token: str

    @property
    def ids(self) -> frozenset[str]:
        """The jobs and sweeps that it shows."""
        return ids_in(self.path)


def ids_in(text: str) -> frozenset[str]:
    """The ids of jobs and sweeps in a path or query."""
    return frozenset(match[0] for match in _ID.finditer(text))


def kind_of(session: Session, shared: Shared, job_id: str) -> str | None:
    """The kind of a job that a link shows, by its id or by that of its sweep; ``None``: it does not show it."""
    job = session.execute(select(Job.id, Job.sweep_id, Job.kind).where(Job.id == job_id)).first()
    return job.kind if job is not None and {job.id, job.sweep_id} & shared.ids else None
