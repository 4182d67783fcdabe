"""Pages about datasets: the list, and the content of one."""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, Response

from service.datasets.errors import DatasetError
from service.datasets.formats.options import PartOptions, PhotoOptions, TableOptions, options_of
from service.datasets.info import DatasetInfo, PartName
from service.jobs.queries import listing
from service.jobs.queries.listing import JobFilter
from service.states import DatasetKind, Task
from service.web.core.core import core, owner
from service.web.datasets import views
from service.web.datasets.schemas import DatasetDetail, TableColumns, dataset_item
from service.web.http.endpoint import endpoint
from service.web.http.responses import as_page, own_address
from service.web.jobs.schemas import job_summary
from tapeline.inputs.uploads import ARCHIVES, REFUSED_SUFFIXES, TABLES

blueprint: Final = Blueprint("dataset_pages", __name__)

TAG: Final = "Pages"
_MAX_SHOWN_JOBS: Final = 20
_FILE_KINDS: Final = {"tables": TABLES, "archives": ARCHIVES, "refused": list(REFUSED_SUFFIXES.items())}
_OPTIONS: Final = {
    "photos": options_of(PhotoOptions),
    "table": options_of(TableOptions),
    "every": options_of(PartOptions),
}
_PARTS: Final = {PartName.TRAIN: "training", PartName.VALIDATION: "validation", PartName.TEST: "test"}


@blueprint.get("/ui/datasets")
@endpoint(TAG, "text/html")
def show_list() -> Response:
    """Show the datasets page: all datasets, and a form to upload one."""
    items = [dataset_item(info) for info in core().repository.catalogue(owner())]
    return as_page("datasets/index.html", datasets=items, file_kinds=_FILE_KINDS, options=_OPTIONS)


@blueprint.get("/ui/datasets/<name>")
@endpoint(TAG, "text/html", problems=("dataset_not_found", "busy"))
def show(name: str) -> Response:
    """Show the page of a dataset: classes, examples, origin, and the jobs that used it."""
    info = core().repository.look_up(name, owner())
    with core().database.read() as session:
        used_by = listing.find(session, JobFilter(dataset=name), owner=owner(), limit=_MAX_SHOWN_JOBS)
    jobs = [job_summary(job) for job in used_by.jobs]
    return as_page("datasets/dataset.html", **_content(info), jobs=jobs, address=own_address())


def _content(info: DatasetInfo) -> dict[str, Any]:
    """The values of the template that describe the data."""
    detail = views.detail(info)
    return {
        "dataset": detail,
        "parts_of": {part: (_PARTS[part], getattr(detail, f"{part}_count")) for part in detail.class_counts or {}},
        "bars": _bars(detail),
        "columns": _statistics(info),
        "facts": _facts(info, detail),
        "is_own": info.owner == (owner() or ""),
    }


def _facts(info: DatasetInfo, detail: DatasetDetail) -> dict[str, Any]:
    """The facts about the dataset for the scripts of the page."""
    return {
        "name": info.name,
        "kind": info.kind.value,
        "urls": detail.urls,
        "class_names": info.class_names,
        "columns": [column["name"] for column in info.columns],
        "numbers": [
            *(column["name"] for column in info.columns if column["type"] == "number"),
            *([info.target] if info.task is Task.REGRESSION else []),
        ],
        "target": info.target or "class",
    }


def _statistics(info: DatasetInfo) -> TableColumns | None:
    """The statistics of a table's columns, if its files can be read."""
    if info.kind is not DatasetKind.TABLE or not info.available:
        return None
    try:
        return views.table_columns(info)
    except DatasetError:
        return None


def _bars(dataset: DatasetDetail) -> list[dict[str, Any]]:
    """The chart of the classes: stacked bars in percent of the largest class; for each class and part the count, and
    the start and the length of its bar."""
    counts = dataset.class_counts or {}
    totals = [sum(class_counts) for class_counts in zip(*counts.values(), strict=True)]
    max_total = max(totals, default=0) or 1
    class_bars = []
    for label, total in enumerate(totals):
        bars, start = [], 0
        for part, part_counts in counts.items():
            count = part_counts[label]
            bars.append((part.value, count, round(100 * start / max_total, 3), round(100 * count / max_total, 3)))
            start += count
        class_bars.append({"name": dataset.class_names[label], "total": total, "bars": bars})
    return class_bars
