"""The limits of owners: each is declared once, with the setting that is its default.

From the declaration follow ``TAPELINE_OWNER_...``, the bodies and responses of ``/owners``, the fields of the page, and
the options and lines of ``tapeline owners``. What enforces a limit reads it as ``Quotas.uploads``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

_MOST: Final = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerLimit:
    """What is said about a limit.

    Attributes:
        name: in the API, and of the option of the command.
        title: in the terminal.
        label: on the page.
        help: of the option.
        change: in a request, for the API.
        own: of an owner's own value, for the API.
        applied: of the value that applies, for the API.
        setting: the field of ``Quotas``; empty: it has no setting, and the rules of fair share give its default.
        kind: ``int`` or ``float``.
        low, high: the lowest and the highest value of an owner's own.
    """

    name: str
    title: str
    label: str
    help: str
    change: str = ""
    own: str = ""
    applied: str = ""
    setting: str = ""
    kind: type[int | float] = int
    low: float = 0
    high: float = _MOST


def _quota(meaning: str, default: int, **limit: Any) -> Any:
    return field(default=default, metadata={"meaning": meaning, "limit": OwnerLimit(**limit)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Quotas:
    """Limits per owner; 0: no limit. Without API keys there are no owners."""

    requests: int = _quota(
        "maximum requests per owner and minute (default: {default}; 0: no limit)",
        100_000,
        name="requests_per_minute",
        title="Requests per minute",
        label="Requests per minute",
        help="Quota: requests per minute.",
    )
    queued: int = _quota(
        "maximum queued jobs per owner (default: {default}; 0: no limit)",
        200_000,
        name="queued_jobs",
        title="Queued jobs",
        label="Queued jobs",
        help="Quota: queued jobs.",
        change="The most queued jobs; 0: no limit, as in the following.",
    )
    running: int = _quota(
        "maximum running jobs per owner (default: {default}, no limit)",
        0,
        name="running_jobs",
        title="Running jobs",
        label="Running jobs at a time",
        help="The most jobs that run at a time.",
        change="The most jobs that run at a time.",
        own="The most jobs that run at a time.",
        low=1,
        high=1_000_000,
    )
    uploads: int = _quota(
        "maximum uploaded bytes per owner and day (default: {default}; 0: no limit)",
        10 * 1024**3,
        name="upload_bytes_per_day",
        title="Uploads per day",
        label="Uploaded bytes per day",
        help="Quota: uploaded bytes per day.",
    )
    datasets: int = _quota(
        "maximum bytes of all datasets of an owner (default: {default}; 0: no limit)",
        50 * 1024**3,
        name="dataset_bytes",
        title="Datasets",
        label="Bytes of datasets",
        help="Quota: bytes of all datasets.",
        change="Bytes of all datasets.",
        applied="Total stored size of the owner's datasets.",
    )
    artifacts: int = _quota(
        "maximum bytes of the files of all jobs of an owner (default: {default}, no limit)",
        0,
        name="artifact_bytes",
        title="Files of jobs",
        label="Bytes of job files",
        help="Quota: bytes of the files of all jobs.",
        change="Bytes of the files of all jobs.",
        applied="Total size of the files of all jobs of the owner.",
    )
    cpu_seconds: int = _quota(
        "maximum CPU seconds of an owner's jobs in 30 days; further jobs wait (default: {default}, no limit)",
        0,
        name="cpu_seconds",
        title="CPU seconds in 30 days",
        label="CPU seconds in 30 days",
        help="Quota: CPU seconds of all jobs in 30 days.",
        change="CPU seconds of all jobs in 30 days; further jobs wait.",
        applied="CPU seconds of all jobs in 30 days; further jobs wait.",
    )
    streams: int = _quota(
        "maximum open streams per owner and web process (default: {default}; 0: no limit)",
        100,
        name="streams",
        title="Open streams",
        label="Open streams",
        help="Quota: open streams per web process.",
        change="Open streams per web process.",
        applied="Simultaneously open streams per web process.",
    )


WEIGHT: Final = OwnerLimit(
    name="weight",
    title="Weight",
    label="Weight",
    help="Share of the slots, relative to other owners: 2 is twice as many as 1.",
    change="The share of the slots, relative to other owners.",
    applied="The share of the slots, relative to other owners.",
    kind=float,
    low=0.001,
    high=1000,
)
MAX_PRIORITY: Final = OwnerLimit(
    name="max_priority",
    title="Highest priority",
    label="Highest priority",
    help="Highest priority of the owner's jobs, 0 to 9; jobs with 6 or more start before those of all owners.",
    change="The highest priority of its jobs; from 6 on they start before those of all owners.",
    high=9,
)
LIMITS: Final = (WEIGHT, MAX_PRIORITY, *(replace(item.metadata["limit"], setting=item.name) for item in fields(Quotas)))


BY_NAME: Final = {limit.name: limit for limit in LIMITS}


def arranged(names: Iterable[str]) -> list[OwnerLimit]:
    """The limits in this order; those that are not named come last."""
    order = [*names]
    return sorted(LIMITS, key=lambda limit: order.index(limit.name) if limit.name in order else len(order))
