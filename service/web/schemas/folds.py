"""Cross-validations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import Field

from service.jobs.queries import folds, listing
from service.states import Status
from service.storage.tables import Job
from service.web.http.schemas import Answer, Metrics, finite
from service.web.schemas.jobs import JobUrls, Progress


class FoldJob(Answer):
    """The job that validates on one fold."""

    fold: int
    id: str
    title: str
    status: Status
    progress: Progress
    metrics: Metrics = Field(
        description="`val_accuracy` and `val_loss` of the last epoch, `best:val_accuracy` of all epochs, and "
        "`test_accuracy`."
    )
    urls: JobUrls


class FoldMean(Answer):
    """The mean of a metric over the folds that have succeeded."""

    label: str
    percent: bool = Field(description="Whether it is a fraction, to be shown as a percentage.")
    count: int = Field(description="Number of folds with a value.")
    mean: float
    standard_deviation: float | None = Field(description="Sample standard deviation over the folds; null for one fold.")
    low: float | None = Field(
        description="Lower end of the 95% interval (Student's t, within the metric's range); null for one fold."
    )
    high: float | None


class FoldSet(Answer):
    """The jobs of a cross-validation and their results."""

    fold_group: str
    folds: int = Field(description="Number of folds.")
    finished: int = Field(description="Number of jobs that have succeeded.")
    jobs: list[FoldJob] = Field(description="In the order of the folds, without those that were deleted.")
    means: dict[str, FoldMean] = Field(description="By metric.")

    @classmethod
    def of(cls, group: str, jobs: Sequence[Job]) -> Self:
        """The response for the jobs of a cross-validation."""
        columns = folds.columns()
        means = {column.name: (column, folds.measured(column, jobs)) for column in columns}
        return cls(
            fold_group=group,
            folds=int(jobs[0].resolved["dataset"]["folds"]),
            finished=sum(job.status == Status.SUCCEEDED for job in jobs),
            jobs=[
                FoldJob(
                    fold=job.resolved["dataset"]["fold"],
                    id=job.id,
                    title=listing.title(job.id, job.name, job.kind),
                    status=Status(job.status),
                    progress=Progress.of(job),
                    metrics=finite({column.name: column.value(job) for column in columns}),
                    urls=JobUrls.of(job.id),
                )
                for job in jobs
            ],
            means={
                name: FoldMean.represent(measured, label=column.label, percent=column.percent)
                for name, (column, measured) in means.items()
                if measured is not None
            },
        )
