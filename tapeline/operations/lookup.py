"""Lookup of jobs by id, name, or a unique part of either."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from tapeline.connection import Connection
from tapeline.errors import AmbiguousJob, ApiError
from tapeline.job import Job

_ID: Final = re.compile(r"job_[0-9A-HJKMNP-TV-Z]{26}")
_PAGE_SIZE: Final = 100
_MAX_LISTED_JOBS: Final = 10
_MAX_NAME_LENGTH: Final = 24
"""Length of a name in the list of candidates, to fit 80 columns."""


@dataclass(frozen=True, slots=True)
class Found:
    """The job that matches."""

    job: Job
    namesakes: int = 1
    """Number of jobs with the same name; of several, ``job`` is the newest. Counted up to 100."""


def is_id(text: str) -> bool:
    """Whether the text is a full id of a job."""
    return _ID.fullmatch(text) is not None


def look_up(connection: Connection, text: str) -> Found:
    """Find the job that ``text`` identifies.

    In this order: a full id, a full name (the newest job that has it), the end of an id, and a part of an id or name
    (case-insensitive) that only one job has.

    Raises:
        AmbiguousJob: several jobs match.
        ApiError: there is no such job (404).
    """
    if is_id(text):
        return Found(Job(connection, {"id": text}).refresh())
    if not text:
        raise _not_found(text)
    namesakes = _list(connection, name=text)
    if namesakes:
        # The list contains summaries only: fetch the full document.
        return Found(Job(connection, namesakes[0]).refresh(), len(namesakes))
    fragment = text.lower()
    matches = [
        job
        for job in _list(connection, q=text)
        if fragment in job["id"].lower() or fragment in (job["name"] or "").lower()
    ]
    suffix_matches = [job for job in matches if job["id"].lower().endswith(fragment)]
    if len(suffix_matches) == 1:
        matches = suffix_matches
    if not matches:
        raise _not_found(text)
    if len(matches) > 1:
        lines = [_line(job) for job in matches[:_MAX_LISTED_JOBS]]
        if len(matches) > _MAX_LISTED_JOBS:
            omitted = f"{len(matches) - _MAX_LISTED_JOBS}" if len(matches) < _PAGE_SIZE else "many"
            lines.append(f"and {omitted} more; client.jobs(q={text!r}) lists them")
        raise AmbiguousJob(text, matches, lines)
    return Found(Job(connection, matches[0]).refresh())


def age(job: Mapping[str, Any]) -> str:
    """Time since a job was submitted, in its largest unit: ``3 min``."""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(job["created_at"])).total_seconds()
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {name}"
    return f"{max(int(seconds), 0)} s"


def _list(connection: Connection, **filters: str) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = connection.json("GET", "/jobs", params={"limit": str(_PAGE_SIZE), **filters})["data"]
    return jobs


def _not_found(text: str) -> ApiError:
    detail = f"no job matches {text!r} by id or name"
    problem = {"code": "job_not_found", "title": "There is no such job", "status": 404, "detail": detail}
    return ApiError(404, problem, "; client.jobs() lists the jobs")


def _line(job: Mapping[str, Any]) -> str:
    name = job["name"] or "-"
    name = name if len(name) <= _MAX_NAME_LENGTH else f"{name[: _MAX_NAME_LENGTH - 1]}…"
    return f"{job['id']}  {name}  {job['status']}  {age(job)} old"
