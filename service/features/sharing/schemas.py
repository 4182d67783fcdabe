"""The bodies of requests about share links, and links as responses."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from service.features.sharing.links import MAX_PATH
from service.spec.schema import StrictModel
from service.web.http.queries import OtherOwner, Query
from service.web.http.schemas import ResponseModel, Timestamp


class SharesQuery(Query):
    """Whose links to list."""

    owner: OtherOwner = None


class ShareRequest(StrictModel):
    """A share link to create."""

    EXAMPLES: ClassVar = {"job": {"path": "/jobs/job_01J00000000000000000000000"}}

    path: Annotated[str, Field(min_length=1, max_length=MAX_PATH)]
    """What it shows: `/jobs/ID`, `/sweeps/ID`, `/comparisons?a=ID&b=ID` or `/compare?jobs=ID,ID`."""
    expires_at: Annotated[str, Field(max_length=40)] | None = None
    """When it stops working, with a time zone (RFC 3339), at most ten years ahead; null: never."""


class ShareItem(ResponseModel):
    """A share link, without its token."""

    id: str
    owner: str | None = None
    path: str
    created_at: Timestamp = Field(validation_alias="created_ms")
    expires_at: Timestamp | None = Field(validation_alias="expires_ms")


class NewShare(ShareItem):
    """A new share link."""

    token: str = Field(description="Only in this response.")
    url: str = Field(description="The address to send to others.")


class ShareList(ResponseModel):
    """The valid share links of an owner."""

    data: list[ShareItem]
