"""The URL parameters of each endpoint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from service.access.audit import AuditAction
from service.datasets.info import PartName
from service.jobs.events import EventFilter, EventType, Level
from service.jobs.queries import columns, files, sorting
from service.jobs.queries.columns import UnknownColumn
from service.jobs.queries.listing import GroupBy, JobFilter, Lacking
from service.spec.schema import MAX_EPOCHS, Kind
from service.states import ListedStatus
from service.web.http.queries import (
    MAX_COMPARED,
    JobId,
    ModelName,
    PictureQuery,
    Query,
    Seq,
    Text,
    WhichCheckpoint,
    blank_is_none,
    split,
)


def _unknown_column(name: str, error: UnknownColumn) -> PydanticCustomError:
    return PydanticCustomError(
        "unknown_column", "{name}: {why}", {"name": name[:100], "why": str(error), "suggestion": error.suggestion}
    )


def _parse_column(name: str) -> str:
    try:
        return columns.parse(name).name
    except UnknownColumn as error:
        raise _unknown_column(name, error) from error


def _check_order(sort: str) -> str:
    try:
        sorting.SortOrder(sort)
    except UnknownColumn as error:
        raise _unknown_column(sort, error) from error
    return sort


Columns = Annotated[
    list[Annotated[str, StringConstraints(max_length=200), AfterValidator(_parse_column)]],
    BeforeValidator(split),
    Field(
        max_length=columns.MAX_COLUMNS,
        description="Columns to add to each job, repeated or comma-separated: properties (`preset`, `duration`, "
        "`parent`), "
        "settings (`optimizer.learning_rate` or `/layers/0/units`), metrics of the last epoch (`val_accuracy`) or the "
        "best of all epochs (`best:val_accuracy`; `min:` and `max:` for metrics without a direction). "
        "`GET /jobs/columns` lists them.",
    ),
]


class FilterQuery(Query):
    """Which jobs to select."""

    status: Annotated[list[ListedStatus], BeforeValidator(split)] = Field(
        default=[],
        description="One or more, repeated or comma-separated. `stopped`: cancelled by their sweeps; `cancelled`: the "
        "other cancelled jobs.",
    )
    kind: Kind | None = None
    tag: Annotated[list[Text], BeforeValidator(split)] = Field(
        default=[], max_length=20, description="Jobs with all of these tags, repeated or comma-separated."
    )
    q: Annotated[Text | None, BeforeValidator(blank_is_none)] = Field(
        None, description="Substring of name, id, tag or note."
    )
    name: Annotated[Text | None, BeforeValidator(blank_is_none)] = Field(None, description="Exact name.")
    preset: Annotated[Text | None, BeforeValidator(blank_is_none)] = None
    dataset: Annotated[Text | None, BeforeValidator(blank_is_none)] = Field(
        None,
        description="Name of a dataset: selects all of its versions. `name@digits`: the version with this SHA-256.",
    )
    spec: Annotated[Text | None, BeforeValidator(blank_is_none)] = Field(
        None, description="A `spec_hash`: jobs with an equivalent spec."
    )
    parent: Annotated[JobId | None, BeforeValidator(blank_is_none)] = Field(
        None, description="Id of a job: selects its forks and reproductions."
    )
    fold_group: Annotated[JobId | None, BeforeValidator(blank_is_none)] = Field(
        None, description="Selects the jobs of one cross-validation: `fold_group` of any of them."
    )
    sweep: Annotated[JobId | None, BeforeValidator(blank_is_none)] = Field(
        None, description="Id of a sweep: selects the jobs of its trials."
    )
    starred: bool | None = None
    without: Annotated[list[Lacking], BeforeValidator(split)] = Field(
        default=[], description="Jobs without these, repeated or comma-separated."
    )

    @property
    def job_filter(self) -> JobFilter:
        """The filter for the database."""
        filters = self.model_dump(
            include={"kind", "name", "preset", "dataset", "spec", "parent", "fold_group", "sweep", "starred", "without"}
        )
        return JobFilter(status=self.status or None, tags=self.tag, text=self.q, **filters)


class PageQuery(FilterQuery):
    """Which jobs to list, in which order, and with which columns."""

    columns: Columns = []
    sort: Annotated[str, StringConstraints(max_length=200), AfterValidator(_check_order)] = Field(
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
    one_per_sweep: bool = Field(
        False, description="Of each sweep, list only its first job; `sweeps` of the answer describes the sweep."
    )
    counts: bool = Field(False, description="Also return the number of jobs in each state, regardless of `status`.")


class ListQuery(PageQuery):
    """Which jobs to list, and the format."""

    format: Literal["json", "csv"] = Field(
        "json",
        description="`csv`: all jobs in one response, at most 50,000; `limit`, `cursor`, `counts` and `one_per_sweep` "
        "are not allowed.",
    )


class IndexQuery(PageQuery):
    """What the jobs page shows."""

    group: Annotated[GroupBy | None, BeforeValidator(blank_is_none)] = Field(None, description="Group the jobs.")

    @property
    def collapses_sweeps(self) -> bool:
        """Whether a sweep is one row: if jobs are sorted by time, and no filter selects only some of its
        jobs."""
        set_filters = {name for name in self.model_fields_set & FilterQuery.model_fields.keys() if getattr(self, name)}
        return not set_filters and self.group is None and self.sort.removeprefix("-") == "created_at"


class GroupQuery(FilterQuery):
    """How to group jobs."""

    by: GroupBy = GroupBy.TAG
    columns: Columns = []
    limit: int = Field(100, ge=1, le=500)


class CompareQuery(Query):
    """Which jobs to compare, and what to plot."""

    jobs: Annotated[list[JobId], BeforeValidator(split)] = Field(
        default=[], description=f"Ids, repeated or comma-separated; at most {MAX_COMPARED}."
    )
    x: Text | None = Field(None, description="A setting, for example `optimizer.learning_rate`.")
    y: Text | None = Field(None, description="A metric, for example `val_accuracy`.")
    of: Literal["best", "last"] = Field("best", description="Which value of the metric.")


class NewQuery(Query):
    """The initial spec of a new job."""

    like: JobId | None = Field(None, description="Id of a job whose spec to copy.")
    sweep: JobId | None = Field(None, description="Id of a sweep whose spec to copy.")
    dataset: Text | None = Field(None, description="Name of a dataset to train on.")


class EventQuery(Query):
    """Which part of a job's log to return, and the format."""

    after: Seq = Field(0, description="Only events with a higher `seq`.")
    before: Annotated[Seq | None, BeforeValidator(blank_is_none)] = Field(
        None, description="Only events with a lower `seq`: the last `limit` of them, in ascending order."
    )
    limit: int = Field(500, ge=1, le=1000)
    type: Annotated[list[EventType], BeforeValidator(split)] = Field(
        default=[], description="One or more types, repeated or comma-separated."
    )
    level: Annotated[Level | None, BeforeValidator(blank_is_none)] = Field(
        None, description="Minimum level. Metrics and files are `info`; a failed job is an `error`."
    )
    q: Annotated[Text | None, BeforeValidator(blank_is_none)] = Field(
        None, description="Substring of an event's content."
    )
    format: Literal["json", "jsonl"] = Field(
        "json", description="`jsonl`: all selected events, one JSON document per line; `limit` does not apply."
    )

    @property
    def event_filter(self) -> EventFilter:
        """The filter for the database."""
        return EventFilter(types=self.type, level=self.level, text=self.q)


class FeedQuery(Query):
    """Which jobs to follow."""

    jobs: Annotated[list[JobId], BeforeValidator(split)] = Field(
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
        None, description="`next_cursor` of the previous page."
    )


class MetricsQuery(Query):
    """The format of the metrics."""

    format: Literal["json", "csv"] = "json"


class PlotQuery(PictureQuery):
    """Of which checkpoint to draw a plot."""

    checkpoint: WhichCheckpoint | None = Field(
        None,
        description="`best`, `latest`, or an epoch number. Default: `latest` for `confusion`, otherwise `best`. "
        "`curves` always has all epochs.",
    )


class MatrixQuery(Query):
    """Which epoch to show."""

    checkpoint: WhichCheckpoint = Field(
        "latest",
        description="`best`, `latest`, or an epoch number. The matrix is stored with the metrics of an epoch, so it "
        "remains when the checkpoint is removed; `latest` is the last finished epoch.",
    )
    epoch: Annotated[int, Field(ge=1, le=MAX_EPOCHS)] | None = Field(
        None,
        json_schema_extra={"deprecated": True},
        description="Former name of `checkpoint`, for an epoch number.",
    )


class ModelQuery(Query):
    """Which model a page shows."""

    checkpoint: ModelName = Field("best", description="The page shows the latest one if the best one is not stored.")


class CellQuery(Query):
    """Which images to return, classified with which checkpoint."""

    checkpoint: WhichCheckpoint = Field("latest", description="`best`, `latest`, or an epoch number.")
    limit: int = Field(64, ge=1, le=256)
    v: Text | None = Field(None, description="Ignored; a new value makes a browser load the image again.")


class MistakesQuery(Query):
    """How many mistakes to return, and of which checkpoint."""

    checkpoint: WhichCheckpoint = Field("best", description="`best`, `latest`, or an epoch number.")
    limit: int = Field(24, ge=1, le=256)


class ExportQuery(Query):
    """Which checkpoint to export, and under which license."""

    checkpoint: WhichCheckpoint = Field(
        "best", description="`best`, `latest`, or an epoch number. `tensorboard` always has all epochs."
    )
    license: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]{0,99}$")] | None = Field(
        None,
        description="License of the model, an SPDX identifier such as `mit`, for the model card of `huggingface`. "
        "Default: that of the dataset.",
    )
    v: Text | None = Field(None, description="Ignored; a new value makes a browser load the file again.")


class ExamplesQuery(Query):
    """Which examples of a dataset to return."""

    part: PartName = PartName.TRAIN
    label: Annotated[Annotated[int, Field(ge=0, le=255)] | None, BeforeValidator(blank_is_none)] = Field(
        None, alias="class", description="Index of a class: only its examples."
    )
    limit: int = Field(24, ge=1, le=100)
    cursor: Annotated[str, StringConstraints(pattern=r"^\d{1,9}$")] | None = Field(
        None, description="`next_cursor` of the previous page."
    )


class ImagesQuery(ExamplesQuery):
    """Which images of a dataset to return, and in which order."""

    order: Literal["data", "mixed"] = Field(
        "data",
        description="`data`: that of the data. `mixed`: the first image of each class, then the second, and so on.",
    )


class CheckpointQuery(Query):
    """Which checkpoint to evaluate."""

    checkpoint: WhichCheckpoint = Field("best", description="`best`, `latest`, or an epoch number.")


class SampleQuery(Query):
    """How to render a sample grid."""

    verdicts: bool = Field(
        False, description="Label each sample of a GAN with the class predicted by the reference classifier."
    )
