"""Distinct names for forks and reproductions.

Distinctness is a convenience, not a constraint: two concurrent requests may choose the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.storage.database import visible
from service.storage.tables import Job

MAX_LENGTH: Final = 200
"""Characters of the longest name that a spec may have."""

_NUMBERED: Final = re.compile(r"(.+)-([1-9]\d{0,8})", re.DOTALL)
_REPRODUCED: Final = re.compile(r"(.+) \(reproduced(?: [1-9]\d{0,8})?\)", re.DOTALL)


def of_fork(session: Session, parent: Job, *, owner: str | None) -> str | None:
    """The next free name for a fork: for ``first`` it is ``first-2``, and for ``first-2`` it is ``first-3``.

    The fork of an unnamed job is unnamed.
    """
    if not parent.name:
        return parent.name
    base, start = _without_reproduced(parent), 2
    # Only the number of a fork was added by this function: another job may be called mnist-10.
    numbered = _NUMBERED.fullmatch(base) if parent.parent_id is not None else None
    if numbered is not None:
        base, start = numbered[1], int(numbered[2]) + 1
    return _first_free(session, (_joined(base, f"-{number}") for number in count(start)), owner)


def of_reproduction(session: Session, original: Job, *, owner: str | None) -> str | None:
    """The next free name for a reproduction: ``first (reproduced)``, then ``first (reproduced 2)``."""
    if not original.name:
        return original.name
    base = _without_reproduced(original)
    suffixes = (" (reproduced)" if number == 1 else f" (reproduced {number})" for number in count(1))
    return _first_free(session, (_joined(base, suffix) for suffix in suffixes), owner)


def _without_reproduced(job: Job) -> str:
    name = job.name or ""
    match = _REPRODUCED.fullmatch(name) if job.reproduction is not None else None
    return match[1] if match is not None else name


def _joined(base: str, suffix: str) -> str:
    return base[: MAX_LENGTH - len(suffix)].rstrip() + suffix


def _first_free(session: Session, candidates: Iterator[str], owner: str | None) -> str:
    """The first candidate that no job of the owner has; ``None`` as owner means all jobs."""
    batch_size = 20
    while True:
        names = [next(candidates) for _ in range(batch_size)]
        used = set(session.scalars(select(Job.name).where(Job.name.in_(names), visible(Job.owner, owner))))
        for name in names:
            if name not in used:
                return name
        batch_size = min(2 * batch_size, 500)  # SQLite's variables are limited
