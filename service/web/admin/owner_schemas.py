"""Owners with their settings and limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Self, TypeVar

from pydantic import BeforeValidator, Field, create_model

from service.access import owners
from service.owner_limits import LIMITS, WEIGHT, OwnerLimit
from service.schema.base import with_fields_of
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


def _applied(limit: OwnerLimit) -> Any:
    kind = _Quota if limit.setting else limit.kind
    return kind, Field(validation_alias=limit.setting or None, description=limit.applied or None)


def _own(limit: OwnerLimit) -> Any:
    return limit.kind if limit is WEIGHT else limit.kind | None, Field(description=limit.own or None)


@with_fields_of(create_model("Applied", **{item.name: _applied(item) for item in LIMITS}))
class OwnerLimits(ResponseModel):
    """The quotas of an owner; null: no limit."""

    @classmethod
    def of(cls, limits: owners.OwnerLimits) -> Self:
        """The limits that apply to an owner."""
        return cls.from_row(limits.quotas, weight=limits.weight, max_priority=limits.max_priority)


@with_fields_of(create_model("Own", **{item.name: _own(item) for item in LIMITS}))
class OwnerSettings(ResponseModel):
    """The settings of an owner; null: the default of the service."""

    @classmethod
    def of(cls, row: Owner) -> Self:
        """Those of an owner with this row."""
        return cls.model_validate({limit.name: row.own(limit.name) for limit in LIMITS})


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
            settings=OwnerSettings.of(settings or Owner(weight=1.0)),
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
