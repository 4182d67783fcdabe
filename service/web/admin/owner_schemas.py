"""Owners with their settings and limits, and share links."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self, TypeVar

from pydantic import BeforeValidator, Field

from service.access import owners
from service.storage.owner_tables import Owner, OwnerQueue
from service.web.http.queries import NumberCursor, Query
from service.web.http.schemas import ResponseModel

T = TypeVar("T")


class OwnersQuery(Query):
    """Which owners to list."""

    limit: int = Field(100, ge=1, le=1000)
    cursor: NumberCursor = None

    def page_of(self, items: Sequence[T]) -> tuple[Sequence[T], str | None]:
        """A page of the items of all owners, and the cursor of the next one."""
        start = int(self.cursor or 0)
        end = start + self.limit
        return items[start:end], str(end) if end < len(items) else None


_Quota = Annotated[int | None, BeforeValidator(lambda quota: quota or None)]
"""The settings have 0 where there is no limit."""


class OwnerLimits(ResponseModel):
    """The quotas of an owner; null: no limit."""

    weight: float = Field(description="The share of the slots, relative to other owners.")
    max_priority: int
    requests_per_minute: _Quota = Field(validation_alias="requests")
    queued_jobs: _Quota = Field(validation_alias="queued")
    running_jobs: _Quota = Field(validation_alias="running")
    upload_bytes_per_day: _Quota = Field(validation_alias="uploads")
    dataset_bytes: _Quota = Field(validation_alias="datasets", description="Total stored size of the owner's datasets.")
    artifact_bytes: _Quota = Field(
        validation_alias="artifacts", description="Total size of the files of all jobs of the owner."
    )
    cpu_seconds: _Quota = Field(description="CPU seconds of all jobs in 30 days; further jobs wait.")
    streams: _Quota = Field(description="Simultaneously open streams per web process.")

    @classmethod
    def of(cls, limits: owners.OwnerLimits) -> Self:
        """The limits that apply to an owner."""
        return cls.from_row(limits.quotas, weight=limits.weight, max_priority=limits.max_priority)


class OwnerSettings(ResponseModel):
    """The settings of an owner; null: the default of the service."""

    weight: float
    max_priority: int | None
    requests_per_minute: int | None
    queued_jobs: int | None
    running_jobs: int | None = Field(description="The most jobs that run at a time.")
    upload_bytes_per_day: int | None
    dataset_bytes: int | None
    artifact_bytes: int | None
    cpu_seconds: int | None
    streams: int | None


class OwnerItem(ResponseModel):
    """An owner."""

    id: str = Field(description="As in `owner` of a job; `-`: everybody without a key.")
    display_name: str | None
    settings: OwnerSettings
    limits: OwnerLimits = Field(description="What applies: the settings, and the defaults for the others.")
    running: int
    queued: int
    share: float = Field(description="The slots that the owner may expect while all others wait as they do now.")
    blocked: str | None = Field(description="Why none of its jobs starts: `quota`.")

    @classmethod
    def of(
        cls, name: str, settings: Owner | None, limits: owners.OwnerLimits, row: OwnerQueue | None, share: float
    ) -> Self:
        """An owner with its jobs, as far as it has any."""
        return cls(
            id=name or owners.EVERYBODY_ID,
            display_name=settings.display_name if settings is not None else None,
            settings=OwnerSettings.from_row(settings or Owner(weight=1.0)),
            limits=OwnerLimits.of(limits),
            running=row.running if row is not None else 0,
            queued=row.queued if row is not None else 0,
            share=round(share, 2),
            blocked=row.blocked if row is not None else None,
        )


class OwnerList(ResponseModel):
    """A page of owners, by name."""

    data: list[OwnerItem]
    has_more: bool
    next_cursor: str | None
