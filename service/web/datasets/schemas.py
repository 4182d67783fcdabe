"""Datasets and their content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from service import kinds
from service.datasets.exploration import ExamplePage, TableColumnItem
from service.datasets.info import DatasetInfo, DatasetState, PartName
from service.datasets.shapes import default_preset
from service.pictures import grids
from service.spec.schema import Kind
from service.states import DatasetKind, Task
from service.web.http.queries import NumberCursor, Query, blank_is_none
from service.web.http.schemas import ResponseModel
from service.web.jobs.schemas import DryRun


class ExamplesQuery(Query):
    """Which examples of a dataset to return."""

    part: PartName = PartName.TRAIN
    label: Annotated[Annotated[int, Field(ge=0, le=255)] | None, BeforeValidator(blank_is_none)] = Field(
        None, alias="class", description="Index of a class: only its examples."
    )
    limit: int = Field(24, ge=1, le=100)
    cursor: NumberCursor = None


class ImagesQuery(ExamplesQuery):
    """Which images of a dataset to return, and in which order."""

    order: Literal["data", "mixed"] = Field(
        "data",
        description="`data`: that of the data. `mixed`: the first image of each class, then the second, and so on.",
    )


class DatasetItem(ResponseModel):
    """A dataset."""

    name: str
    title: str
    kind: DatasetKind
    task: Task = Field(description="What a network learns from it: `regression` predicts the number in `target`.")
    target: str = Field(description="The column of a table that is learned; empty for images.")
    image_shape: list[int] = Field(
        description="Rows and columns, and 3 for images in colour; empty: a table, or damaged files."
    )
    columns: list[dict[str, Any]] = Field(description="Columns of a table: their names and types.")
    classes: int = Field(description="0 if the target is a number.")
    train_count: int
    validation_count: int
    test_count: int = Field(description="Examples that training never sees and that are scored once at its end.")
    report: dict[str, Any] | None = Field(
        description="Report of an upload's import: what was detected, and what was left out."
    )
    class_names: list[str]
    source: str
    licence: str
    sha256: str | None
    version: str | None = Field(description="Name of exactly these data, for specs: `mine@1a2b3c4d5e6f`.")
    versions: list[str] = Field(description="All versions with this name, the newest first; `mine` names the newest.")
    available: bool = Field(
        description="Whether its files are available locally; otherwise a worker downloads them for the first job."
    )
    state: DatasetState = Field(
        description="`ready`; `download`: the first job downloads it; `unavailable`: its files are damaged, or a "
        "download "
        "failed within the last day or cannot be stored. Jobs are accepted unless the files are damaged."
    )
    state_reason: str | None = Field(description="Why the dataset is not ready.")
    download_bytes: int | None = Field(description="Download size; null if no download is needed.")
    download_from: list[str] = Field(description="Hosts that a download tries, in order.")
    problem: str | None
    uploaded: bool = Field(
        description="Whether it was uploaded with `POST /datasets`; only uploaded datasets can be deleted."
    )
    shared: bool = Field(description="Whether an admin has published it to all owners.")
    default_kind: Kind = Field(description="The kind of job that learns from it.")
    default_preset: str = Field(description="Preset of a classifier or regressor whose spec names none.")
    urls: dict[str, str]


class DatasetDetail(DatasetItem):
    """A dataset with its content in numbers."""

    class_counts: dict[PartName, list[int]] | None = Field(
        description="Examples of each class in each part; null if its files are damaged or not downloaded."
    )


class UploadDryRun(ResponseModel):
    """What an upload would be stored as."""

    name: str
    kind: DatasetKind
    task: Task
    target: str
    image_shape: list[int]
    columns: list[dict[str, Any]]
    classes: int
    train_count: int
    validation_count: int
    test_count: int
    class_names: list[str]
    report: dict[str, Any] | None
    default_preset: str
    plan: DryRun | None = Field(description="The cost of the job of `spec`; null without a spec.")


class UploadQuery(Query):
    """How to process an upload."""

    dry_run: bool = Field(False, description="Read and check the files, and store nothing.")


class DatasetExample(ResponseModel):
    """An image of a dataset."""

    index: int = Field(description="Its place in the part, from 0.")
    label: int
    class_name: str
    image: str = Field(description="PNG in base64.")


class ExampleList(ResponseModel):
    """Images of a dataset, in the order of the data."""

    data: list[DatasetExample]
    has_more: bool
    next_cursor: str | None


class DatasetRow(ResponseModel):
    """A row of a table."""

    index: int = Field(description="Its place in the part, from 0.")
    label: int | None = Field(description="Number of its class; null if the target is a number.")
    class_name: str | None
    target: float | None = Field(None, description="The number to predict.")
    values: dict[str, float | int | str | None] = Field(
        description="By column: a number, the text of a category, or an ISO date; null: missing."
    )


class RowList(ResponseModel):
    """Rows of a table, in the order of the data."""

    data: list[DatasetRow]
    has_more: bool
    next_cursor: str | None


class TableColumns(ResponseModel):
    """Statistics of a table's columns, over its training and validation rows."""

    rows: int = Field(
        description="Number of rows that the statistics include; a table with more than 200,000 rows is sampled."
    )
    columns: list[TableColumnItem]


class DatasetList(ResponseModel):
    """All datasets."""

    data: list[DatasetItem]


def dataset_item(info: DatasetInfo) -> DatasetItem:
    """A dataset for a list."""
    return DatasetItem.from_row(info, **_derived(info))


def dataset_detail(info: DatasetInfo, class_counts: Mapping[PartName, Sequence[int]] | None) -> DatasetDetail:
    """A dataset with its content in numbers."""
    return DatasetDetail.from_row(info, class_counts=class_counts, **_derived(info))


def examples_page(page: ExamplePage, info: DatasetInfo) -> dict[str, Any]:
    """The fields of a page of images or rows."""
    field, shown = ("values", lambda row: row) if info.kind is DatasetKind.TABLE else ("image", grids.image_base64)
    data = [
        {"index": item.index, **_target_fields(item.label, info), field: shown(item.input)} for item in page.examples
    ]
    next_cursor = None if page.next_index is None else str(page.next_index)
    return {"data": data, "has_more": next_cursor is not None, "next_cursor": next_cursor}


def _target_fields(label: float, info: DatasetInfo) -> dict[str, Any]:
    if info.task is Task.REGRESSION:
        return {"label": None, "class_name": None, "target": label}
    return {"label": label, "class_name": info.class_names[int(label)]}


def _derived(info: DatasetInfo) -> dict[str, Any]:
    """The fields that are not attributes of ``info``."""
    address = f"/datasets/{info.name}"
    urls = {"self": address, "page": f"/ui/datasets/{info.name}"}
    if info.available and info.kind is DatasetKind.TABLE:
        urls |= {"rows": f"{address}/rows", "columns": f"{address}/columns"}
    elif info.available:
        urls |= {"preview": f"{address}/preview.png", "examples": f"{address}/examples"}
    return {
        "download_bytes": info.download_bytes or None,
        "uploaded": info.upload_id is not None,
        "default_kind": Kind(kinds.for_task(info.task).name),
        "default_preset": default_preset(info),
        "urls": urls,
    }
