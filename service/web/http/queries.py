"""The base of all URL parameters, and those that several subjects share."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from service.jobs.events import MAX_SEQ
from service.jobs.queries.sorting import MAX_CURSOR

MAX_COMPARED: Final = 200
"""Jobs on one page; their ids fit into a request line of 8 KiB."""


def split(value: Any) -> Any:
    """The parts of repeated and comma-separated values."""
    return [token for item in value for token in item.split(",") if token] if isinstance(value, list) else value


def blank_is_none(value: Any) -> Any:
    """Browsers also send the empty fields of a form."""
    return None if value == "" else value


Text = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
JobId = Annotated[str, StringConstraints(max_length=40, pattern=r"^[^\x00-\x1f\x7f]*$")]
OptionalText = Annotated[Text | None, BeforeValidator(blank_is_none)]
OptionalId = Annotated[JobId | None, BeforeValidator(blank_is_none)]
Seq = Annotated[int, Field(ge=0, le=MAX_SEQ)]
_NEXT_PAGE: Final = Field(description="`next_cursor` of the previous page.")
Cursor = Annotated[Annotated[str, StringConstraints(max_length=MAX_CURSOR)] | None, _NEXT_PAGE]
"""Where a page of a list begins."""
NumberCursor = Annotated[Annotated[str, StringConstraints(pattern=r"^\d{1,18}$")] | None, _NEXT_PAGE]
"""The same as a number: of rows to skip, or the id of the last row."""
WhichCheckpoint = Annotated[str, StringConstraints(pattern=r"^(best|latest|[1-9]\d{0,8})$")]
ModelName = Literal["best", "latest"]
"""Which of a job's models a page shows."""


class Query(BaseModel):
    """Base of URL parameters; unknown parameters are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_OTHERS: Final = object()
"""Marks the parameter with the owner whose objects an operation shows."""
OTHER_OWNER: Final = (
    "For the scope `admin`: what belongs to this owner (an id or a unique display name), with `-`, to everybody "
    "without a key, or, with `*`, to all. "
    "Such reads are in the audit log."
)


OtherOwner = Annotated[OptionalText, Field(description=OTHER_OWNER), _OTHERS]


def lists_for_others(query: type[Query] | None) -> bool:
    """Whether these parameters have the owner whose objects are shown."""
    field = query.model_fields.get("owner") if query is not None else None
    return field is not None and _OTHERS in field.metadata


class NoQuery(Query):
    """No parameters."""


class SubmitQuery(Query):
    """How to process a spec."""

    dry_run: bool = Field(False, description="Check the spec and estimate its cost; store nothing.")


class StreamQuery(Query):
    """Where to start."""

    after: Seq | None = Field(None, description="Replay the events after this `seq`, like `Last-Event-ID`.")


def former_name(text: str) -> Any:
    """The field of a parameter's or field's old name, accepted and returned until 0.3."""
    return Field(json_schema_extra={"deprecated": True}, description=text)


class PictureQuery(Query):
    """For images that change."""

    v: Text | None = Field(None, description="Ignored; a new value makes a browser load the image again.")
