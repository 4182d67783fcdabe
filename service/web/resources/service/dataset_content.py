"""The content of a dataset: images, rows, columns."""

from __future__ import annotations

import math
from typing import Final

from flask import Blueprint

from service.datasets.errors import DatasetError
from service.datasets.exploration.explorer import DatasetExplorer
from service.datasets.info import DatasetInfo
from service.states import DatasetKind
from service.web.core.core import core, owner, provided
from service.web.files.drawings import require_available
from service.web.http import slots
from service.web.http.endpoint import endpoint
from service.web.http.problems import Problem
from service.web.schemas.datasets import (
    DatasetDetail,
    ExampleList,
    RowList,
    TableColumnItem,
    TableColumns,
    dataset_detail,
)
from service.web.schemas.queries import ExamplesQuery, ImagesQuery

blueprint: Final = Blueprint("dataset_content", __name__)

TAG: Final = "Datasets"
_PROBLEMS: Final = ("dataset_not_found", "not_yet", "dataset_unavailable", "wrong_dataset_kind")
_MAX_NUMBERS: Final = 2**22
"""Maximum number of values in all images of a response; pages of large images are shorter."""


@blueprint.get("/datasets/<name>/examples")
@endpoint(TAG, ExampleList, query=ImagesQuery, problems=_PROBLEMS)
def examples(name: str, query: ImagesQuery) -> ExampleList:
    """Show images of a dataset, in the order of the data or with the classes mixed.

    A page of large images has fewer than `limit`.
    """
    info = _find(name, DatasetKind.IMAGES)
    limit = max(1, min(query.limit, _MAX_NUMBERS // math.prod(info.image_shape)))
    page = provided(DatasetExplorer).images(
        info, query.part, query.label, start=int(query.cursor or 0), limit=limit, mixed=query.order == "mixed"
    )
    return ExampleList.of(page, info.class_names)


@blueprint.get("/datasets/<name>/rows")
@endpoint(TAG, RowList, query=ExamplesQuery, problems=_PROBLEMS)
def rows(name: str, query: ExamplesQuery) -> RowList:
    """Show rows of a table, in the order of the data."""
    info = _find(name, DatasetKind.TABLE)
    page = provided(DatasetExplorer).rows(
        info, query.part, query.label, start=int(query.cursor or 0), limit=query.limit
    )
    return RowList.of(page, info.class_names)


@blueprint.get("/datasets/<name>/columns")
@endpoint(TAG, TableColumns, problems=(*_PROBLEMS, "busy"))
def columns(name: str) -> TableColumns:
    """Show statistics of the columns of a table."""
    return table_columns(_find(name, DatasetKind.TABLE))


def table_columns(info: DatasetInfo) -> TableColumns:
    """The statistics of a table whose files are available."""
    with slots.hold(slots.COMPUTING):
        statistics = provided(DatasetExplorer).column_statistics(info)
    return TableColumns(
        rows=statistics.rows, columns=[TableColumnItem.represent(column) for column in statistics.columns]
    )


def detail(info: DatasetInfo) -> DatasetDetail:
    """A dataset with its class counts, if its files can be read."""
    try:
        counts = provided(DatasetExplorer).class_counts(info) if info.available else None
    except DatasetError:
        counts = None
    return dataset_detail(info, counts)


def _find(name: str, kind: DatasetKind) -> DatasetInfo:
    info = core().repository.look_up(name, owner())
    require_available(info)
    if info.kind is not kind:
        descriptions = {"images": "has images: see GET /datasets/{name}/examples", "table": "is a table: see its rows"}
        raise Problem("wrong_dataset_kind", f"{info.name} {descriptions[info.kind.value].format(name=info.name)}")
    return info
