"""Lists of jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from tapeline.job import Job
from tapeline.method_types import Records

_MAX_SHOWN: Final = 20


class Jobs(Iterator[Job]):
    """Jobs, fetched in pages as they are iterated over. A notebook shows the first ones, ``to_frame()`` has all."""

    def __init__(self, read: Callable[[], Iterator[Job]]) -> None:
        self._read = read
        self._jobs = read()

    def __next__(self) -> Job:
        return next(self._jobs)

    def to_frame(self) -> Any:
        """All jobs as a DataFrame of pandas, with the metrics of their last epochs."""
        return Records(_row(job) | job.metrics for job in self._read()).to_frame()

    def _repr_html_(self) -> str:
        return Records(_row(job) for job in islice(self._read(), _MAX_SHOWN))._repr_html_()


def _row(job: Job) -> dict[str, Any]:
    fields: Mapping[str, Any] = job
    row = {name: fields[name] for name in ("id", "name", "kind", "status")}
    columns = {name: value for name, value in fields.get("columns", {}).items() if name not in row}
    return row | {"epoch": job.epoch, "best_epoch": job.best_epoch, "created_at": fields["created_at"]} | columns
