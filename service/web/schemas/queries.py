"""Validation of a request's body, URL parameters and headers."""

from __future__ import annotations

import hashlib
import re
import threading
from contextlib import nullcontext
from typing import Annotated, Any, Final, Literal, TypeVar

from flask import request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import PydanticCustomError

from service.access.audit import AuditAction
from service.jobs import submissions
from service.jobs.events import MAX_SEQ, EventType, Level
from service.jobs.queries import columns, files, sorting
from service.jobs.queries.columns import UnknownColumn
from service.jobs.queries.listing import GroupBy, JobFilter, Lacking
from service.spec import validation
from service.spec.schema import Kind
from service.states import Status
from service.web.middleware.problems import Problem
from service.web.server import arrivals

MAX_BODY_BYTES: Final = 1024 * 1024
MAX_WAIT_S: Final = 60
MAX_COMPARED: Final = 200
"""Jobs on one page; their ids fit into a request line of 8 KiB."""

_LARGE_BODY_BYTES: Final = 64 * 1024
"""Far more than a spec has."""
_PARSING: Final = threading.Lock()
"""Held while a large body is parsed: one at a time in this process."""
_KEY: Final = re.compile(r"[\x20-\x7e]{1,255}")
_WAIT: Final = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,6})\"?\s*(?:$|[,;])", re.IGNORECASE)

Q = TypeVar("Q", bound="Query")


def _split(value: Any) -> Any:
    return [part for item in value for part in item.split(",") if part] if isinstance(value, list) else value


def _blank_is_none(value: Any) -> Any:
    """Browsers also send the empty fields of a form."""
    return None if value == "" else value


def _refused(name: str, error: UnknownColumn) -> PydanticCustomError:
    return PydanticCustomError(
        "unknown_column", "{name}: {why}", {"name": name[:100], "why": str(error), "suggestion": error.suggestion}
    )


def _column(name: str) -> str:
    try:
        return columns.parse(name).name
    except UnknownColumn as error:
        raise _refused(name, error) from error


def _order(sort: str) -> str:
    try:
        sorting.SortOrder(sort)
    except UnknownColumn as error:
        raise _refused(sort, error) from error
    return sort


Text = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
JobId = Annotated[str, StringConstraints(max_length=40, pattern=r"^[^\x00-\x1f\x7f]*$")]
Seq = Annotated[int, Field(ge=0, le=MAX_SEQ)]
WhichCheckpoint = Annotated[str, StringConstraints(pattern=r"^(best|latest|[1-9]\d{0,8})$")]
Columns = Annotated[
    list[Annotated[str, StringConstraints(max_length=200), AfterValidator(_column)]],
    BeforeValidator(_split),
    Field(
        max_length=columns.MAX_COLUMNS,
        description="Columns to add to each job, repeated or comma-separated: properties (`preset`, `duration`, "
        "`parent`), "
        "settings (`optimizer.learning_rate` or `/layers/0/units`), metrics of the last epoch (`val_accuracy`) or the "
        "best of all epochs (`best:val_accuracy`; `min:` and `max:` for metrics without a direction). "
        "`GET /jobs/columns` lists them.",
    ),
]


class Query(BaseModel):
    """Base of URL parameters; unknown parameters are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoQuery(Query):
    """No parameters."""


class SubmitQuery(Query):
    """How to process a spec."""

    dry_run: bool = Field(False, description="Check the spec and estimate its cost; store nothing.")


class FilterQuery(Query):
    """Which jobs to select."""

    status: Annotated[list[Status], BeforeValidator(_split)] = Field(
        default=[], description="One or more, repeated or comma-separated."
    )
    kind: Kind | None = None
    tag: Annotated[list[Text], BeforeValidator(_split)] = Field(
        default=[], max_length=20, description="Jobs with all of these tags, repeated or comma-separated."
    )
    q: Annotated[Text | None, BeforeValidator(_blank_is_none)] = Field(
        None, description="Substring of name, id, tag or note."
    )
    name: Annotated[Text | None, BeforeValidator(_blank_is_none)] = Field(None, description="Exact name.")
    preset: Annotated[Text | None, BeforeValidator(_blank_is_none)] = None
    dataset: Annotated[Text | None, BeforeValidator(_blank_is_none)] = Field(
        None,
        description="Name of a dataset: selects all of its versions. `name@digits`: the version with this SHA-256.",
    )
    spec: Annotated[Text | None, BeforeValidator(_blank_is_none)] = Field(
        None, description="A `spec_hash`: jobs with an equivalent spec."
    )
    parent: Annotated[JobId | None, BeforeValidator(_blank_is_none)] = Field(
        None, description="Id of a job: selects its forks and reproductions."
    )
    starred: bool | None = None
    without: Annotated[list[Lacking], BeforeValidator(_split)] = Field(
        default=[], description="Jobs without these, repeated or comma-separated."
    )

    @property
    def wanted(self) -> JobFilter:
        """The filter for the database."""
        same = self.model_dump(include={"kind", "name", "preset", "dataset", "spec", "parent", "starred", "without"})
        return JobFilter(status=self.status or None, tags=self.tag, text=self.q, **same)


class PageQuery(FilterQuery):
    """Which jobs to list, in which order, and with which columns."""

    columns: Columns = []
    sort: Annotated[str, StringConstraints(max_length=200), AfterValidator(_order)] = Field(
        "-created_at",
        description="Prefix `-` for descending order. `created_at`, `priority`, `name`, `started_at`, `finished_at`; "
        "`status`: running jobs first; `duration` of ended jobs; `epoch`: number of finished epochs; or any column "
        "that `GET /jobs/columns` marks as sortable, such as `-val_accuracy`, `best:val_loss` or "
        "`optimizer.learning_rate`. Jobs without a value are always last.",
    )
    limit: int = Field(20, ge=1, le=100)
    cursor: Annotated[str, StringConstraints(max_length=sorting.MAX_CURSOR)] | None = Field(
        None, description="`next_cursor` of the previous page."
    )
    counts: bool = Field(False, description="Also return the number of jobs in each state, regardless of `status`.")


class ListQuery(PageQuery):
    """Which jobs to list, and the format."""

    format: Literal["json", "csv"] = Field(
        "json",
        description="`csv`: all jobs in one response, at most 50,000; `limit`, `cursor` and `counts` are not allowed.",
    )


class IndexQuery(PageQuery):
    """What the jobs page shows."""

    group: Annotated[GroupBy | None, BeforeValidator(_blank_is_none)] = Field(None, description="Group the jobs.")


class GroupQuery(FilterQuery):
    """How to group jobs."""

    by: GroupBy = GroupBy.TAG
    columns: Columns = []
    limit: int = Field(100, ge=1, le=500)


class CompareQuery(Query):
    """Which jobs to compare, and what to plot."""

    jobs: Annotated[list[JobId], BeforeValidator(_split)] = Field(
        default=[], description=f"Ids, repeated or comma-separated; at most {MAX_COMPARED}."
    )
    x: Text | None = Field(None, description="A setting, for example `optimizer.learning_rate`.")
    y: Text | None = Field(None, description="A metric, for example `val_accuracy`.")
    of: Literal["best", "last"] = Field("best", description="Which value of the metric.")


class NewQuery(Query):
    """The initial spec of a new job."""

    like: JobId | None = Field(None, description="Id of a job whose spec to copy.")


class EventQuery(Query):
    """Which part of a job's log to return, and the format."""

    after: Seq = Field(0, description="Only events with a higher `seq`.")
    before: Annotated[Seq | None, BeforeValidator(_blank_is_none)] = Field(
        None, description="Only events with a lower `seq`: the last `limit` of them, in ascending order."
    )
    limit: int = Field(500, ge=1, le=1000)
    type: Annotated[list[EventType], BeforeValidator(_split)] = Field(
        default=[], description="One or more types, repeated or comma-separated."
    )
    level: Annotated[Level | None, BeforeValidator(_blank_is_none)] = Field(
        None, description="Minimum level. Metrics and files are `info`; a failed job is an `error`."
    )
    q: Annotated[Text | None, BeforeValidator(_blank_is_none)] = Field(
        None, description="Substring of an event's content."
    )
    format: Literal["json", "jsonl"] = Field(
        "json", description="`jsonl`: all selected events, one JSON document per line; `limit` does not apply."
    )


class StreamQuery(Query):
    """Where to start."""

    after: Seq | None = Field(None, description="Replay the events after this `seq`, like `Last-Event-ID`.")


class FeedQuery(Query):
    """Which jobs to follow."""

    jobs: Annotated[list[JobId], BeforeValidator(_split)] = Field(
        default=[], max_length=MAX_COMPARED, description="Ids, repeated or comma-separated; default: all jobs."
    )


class AuditQuery(Query):
    """Which part of the audit log to return."""

    owner: Text | None = Field(None, description="Only actions with this owner's keys.")
    action: AuditAction | None = None
    subject: Text | None = Field(None, description="Only actions on this job, key or dataset.")
    before: Seq | None = Field(None, description="`next_before` of the previous page.")
    limit: int = Field(100, ge=1, le=1000)


class SealsQuery(Query):
    """Which seals of the audit log to return."""

    before: Seq | None = Field(None, description="`next_before` of the previous page.")
    limit: int = Field(100, ge=1, le=1000)


class QueueQuery(Query):
    """How much of the queue to return."""

    limit: int = Field(100, ge=1, le=1000)


class FilesQuery(Query):
    """Which of a job's files to list."""

    limit: int = Field(1000, ge=1, le=1000)
    cursor: Annotated[str, StringConstraints(max_length=files.MAX_CURSOR)] | None = Field(
        None, description="`next_cursor` of the page before."
    )


class MetricsQuery(Query):
    """The format of the metrics."""

    format: Literal["json", "csv"] = "json"


class PictureQuery(Query):
    """For images that change."""

    v: Text | None = Field(None, description="Ignored; a new value makes a browser load the image again.")


class EpochQuery(Query):
    """Which epoch to show."""

    epoch: Annotated[int, Field(ge=1)] | None = Field(None, description="Default: the last finished epoch.")


class CellQuery(Query):
    """Which images to return, classified with which checkpoint."""

    checkpoint: WhichCheckpoint = Field("latest", description="`best`, `latest`, or an epoch number.")
    limit: int = Field(64, ge=1, le=256)
    v: Text | None = Field(None, description="Ignored; a new value makes a browser load the image again.")


class MistakesQuery(Query):
    """How many mistakes to return, and of which checkpoint."""

    checkpoint: WhichCheckpoint = Field("best", description="`best`, `latest`, or an epoch number.")
    limit: int = Field(24, ge=1, le=256)


class SampleQuery(Query):
    """How to render a sample grid."""

    verdicts: bool = Field(
        False, description="Label each sample of a GAN with the class predicted by the reference classifier."
    )


def read_query(model: type[Q]) -> Q:
    """The parameters of the URL.

    Raises:
        Problem: some are not valid; ``errors`` names each.
    """
    given: dict[str, Any] = {}
    for name, values in request.args.lists():
        field = model.model_fields.get(name)
        listed = field is not None and str(field.annotation).startswith("list")
        given[name] = values if listed else values[-1]
    try:
        return model.model_validate(given)
    except ValidationError as error:
        known = ", ".join(model.model_fields) or "none"
        faults = []
        for item in error.errors():
            name = str(item["loc"][0]) if item["loc"] else ""
            unknown = item["type"] == "extra_forbidden"
            message = f"unknown parameter; allowed: {known}" if unknown else item["msg"].removeprefix("Input ")
            code = "unknown_parameter" if unknown else "invalid_value"
            faults.append({"parameter": name[:100], "detail": message, "code": code})
            if suggestion := item.get("ctx", {}).get("suggestion"):
                faults[-1]["suggestion"] = suggestion
        raise _bad_parameters(faults) from error


def read_json(*, also: str | None = None, max_bytes: int = MAX_BODY_BYTES) -> Any:
    """The body, which must say that it is JSON.

    Args:
        also: another media type that will do.
        max_bytes: smaller where no key is needed.

    Raises:
        Problem: it says that it is something else, or it is too large.
        MalformedJson: it is something else.
    """
    if request.mimetype not in ("application/json", also):
        shown = repr(request.mimetype[:100]) if request.mimetype else "missing"
        raise Problem("unsupported_media_type", f"the content type must be application/json; it is {shown}")
    # Where a body comes in chunks, Werkzeug cuts it off at its limit without a word: hence one byte more.
    request.max_content_length = max_bytes + 1
    body = request.get_data(cache=False)
    arrivals.end()
    if len(body) > max_bytes:
        raise Problem("body_too_large", f"the body is larger than {max_bytes // 1024:,} KiB")
    # Many at once would keep the interpreter from everybody else for as long as all of them take.
    with _PARSING if len(body) > _LARGE_BODY_BYTES else nullcontext():
        return validation.parse_json(body)


def idempotency_key(body: Any) -> submissions.IdempotencyKey | None:
    """The client's name for this request, with what the request says.

    Raises:
        Problem: the key is too long, or not plain text.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        detail = "must have 1 to 255 printable ASCII characters"
        raise _bad_parameters([{"parameter": "Idempotency-Key", "detail": detail, "code": "invalid_value"}])
    said = "\n".join([request.method, request.path, validation.canonical(body)])
    return submissions.IdempotencyKey(key=key, fingerprint=hashlib.sha256(said.encode()).hexdigest())


def last_event_id(query: StreamQuery) -> int | None:
    """The number of the last event that a client has, ``None`` if it has none.

    Raises:
        Problem: the header does not hold a number.
    """
    text = request.headers.get("Last-Event-ID", "").strip()
    if not text:
        return query.after
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        detail = "must be the id of an event of this job, a number"
        raise _bad_parameters([{"parameter": "Last-Event-ID", "detail": detail, "code": "invalid_value"}])
    return int(text)


def preferred_wait_s() -> int:
    """How long the client would have the answer held (``Prefer: wait=30``); 0 where it says nothing."""
    found = _WAIT.search(request.headers.get("Prefer", ""))
    return min(int(found[1]), MAX_WAIT_S) if found else 0


def _bad_parameters(faults: list[dict[str, str]]) -> Problem:
    detail = "; ".join(f"{fault['parameter']}: {fault['detail']}" for fault in faults)
    return Problem("invalid_parameter", detail[:1000], errors=faults)
