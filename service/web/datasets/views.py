"""Datasets: list, show, upload and delete them; their images, rows and columns."""

from __future__ import annotations

import functools
import math
from typing import Any, Final

from flask import Blueprint, Response, request

from service import kinds
from service.access.keys import Scope
from service.application.datasets import DatasetUploads, ReceivedFiles
from service.application.jobs import Jobs
from service.datasets.errors import DatasetError
from service.datasets.exploration import DatasetExplorer
from service.datasets.info import DatasetInfo
from service.datasets.repository import DatasetRepository
from service.datasets.shapes import default_preset
from service.jobs.request_bodies import DatasetPatch
from service.pictures import grids
from service.states import DatasetKind
from service.web.core.core import core, owner, provided
from service.web.datasets import uploads
from service.web.datasets.schemas import (
    DatasetDetail,
    DatasetList,
    ExampleList,
    ExamplesQuery,
    ImagesQuery,
    RowList,
    TableColumns,
    UploadDryRun,
    UploadQuery,
    dataset_detail,
    dataset_item,
    examples_page,
)
from service.web.datasets.upload_progress import ProgressBoard, UploadItem
from service.web.datasets.uploads import UploadForm
from service.web.gate.access_checks import actor
from service.web.http import downloads, requests, slots
from service.web.http.downloads import Picture
from service.web.http.endpoint import Result, endpoint
from service.web.http.path_parameters import PathParameter
from service.web.http.problems import Problem
from service.web.http.responses import as_json
from service.web.inference.loading import require_available, require_images
from service.web.jobs.schemas import DryRun

blueprint: Final = Blueprint("datasets", __name__)

TAG: Final = "Datasets"
NAME: Final = PathParameter("name", "A dataset's name.", "mnist-10k")
INDEX: Final = PathParameter("index", "The image's index, from 0.", "0")
UPLOAD_ID: Final = PathParameter("upload_id", "The `Upload-Id` of an upload.", "0b9f4a52-6c1e-4c6b-9d0c-3f1f8f2a7d10")
_MAX_PREVIEWS: Final = 32
"""Number of previews cached in memory."""


@blueprint.get("/datasets")
@endpoint(TAG, DatasetList, page="/ui/datasets", client="datasets")
def show_list() -> DatasetList:
    """List the available datasets."""
    return DatasetList(data=[dataset_item(info) for info in core().repository.catalogue(owner())])


@blueprint.post("/datasets")
@endpoint(
    TAG,
    DatasetDetail,
    status=201,
    query=UploadQuery,
    form=UploadForm,
    headers=("Upload-Id",),
    other_responses={200: UploadDryRun},
    problems=(
        "invalid_parameter",
        "malformed_form",
        "too_slow",
        "dataset_exists",
        "dataset_space_exceeded",
        "body_too_large",
        "unsupported_media_type",
        "invalid_upload",
        "invalid_spec",
        "upload_cancelled",
        "too_many_uploads",
        "storage_full",
        "quota_exceeded",
    ),
)
def upload(query: UploadQuery) -> Result:
    """Upload a dataset, or a new version of one.

    A name refers to its newest version, `name@1a2b3c4d` to the version whose SHA-256 starts with these digits. A
    job keeps the version that it was submitted with.

    Images with their classes: a zip or tar archive with a folder of image files for each class, an NPZ archive, or
    IDX files, plain or gzipped; see the fields of the form. Or a table: a CSV or TSV file, of which one column,
    `target`, holds the class. In the response, `columns` has the type and the missing values of each column that is
    used; `report` lists what was left out: columns, and the first 100 rejected rows by line.

    The files are read in a sandbox. Other owners cannot see the dataset. The response is sent when everything is
    stored. With an `Upload-Id`, `GET /uploads/{upload_id}` returns the progress.

    With `dry_run=true` nothing is stored: the response has what was detected and, with `spec`, the cost of a job.
    """
    quotas, uploader = core().quotas, owner()
    progress = provided(ProgressBoard).upload(uploader, requests.upload_id(), request.content_length)
    with slots.hold(slots.UPLOADS), progress as recorder:
        quotas.check_upload(uploader, request.content_length or 1)
        count = functools.partial(quotas.count_upload, uploader)
        receive = functools.partial(uploads.receive, dry_run=query.dry_run, count=count, on_received=recorder.received)
        if query.dry_run:
            return as_json(_dry_run(*provided(DatasetUploads).try_out(receive, by=actor(), on_progress=recorder.read)))
        info = provided(DatasetUploads).add(receive, by=actor(), on_progress=recorder.read)
    return detail(info), {"Location": f"/datasets/{info.name}"}


def _dry_run(received: ReceivedFiles, info: DatasetInfo) -> UploadDryRun:
    plan = None
    if received.spec is not None:
        spec: dict[str, Any] = {"kind": kinds.for_task(info.task).name, **received.spec}
        plan = DryRun.of(provided(Jobs).specs.forecast(spec, owner(), info))
    return UploadDryRun.from_row(info, default_preset=default_preset(info), plan=plan)


@blueprint.get("/uploads/<upload_id>")
@endpoint(TAG, UploadItem, client="upload_progress")
def show_upload(upload_id: str) -> UploadItem:
    """Show the progress of an upload that is being received or read.

    Its sender chooses the id and may ask before the first byte has arrived: an upload that has not begun, or has
    ended, is `absent`.
    """
    return provided(ProgressBoard).look_up(owner(), upload_id)


@blueprint.delete("/uploads/<upload_id>")
@endpoint(TAG, None, status=204, problems=("upload_stored",))
def cancel_upload(upload_id: str) -> None:
    """Cancel an upload that is being received or read; nothing of it is stored.

    The `POST` ends with the problem `upload_cancelled`. An upload that has not begun, or has ended, is not changed.
    """
    provided(ProgressBoard).cancel(owner(), upload_id)


@blueprint.get("/datasets/<name>")
@endpoint(TAG, DatasetDetail, problems=("dataset_not_found",), page="/ui/datasets/{name}")
def show(name: str) -> DatasetDetail:
    """Show a dataset, with the number of examples of each class."""
    return detail(core().repository.look_up(name, owner()))


@blueprint.patch("/datasets/<name>")
@endpoint(
    TAG,
    DatasetDetail,
    scope=Scope.ADMIN,
    body=DatasetPatch,
    body_media="application/merge-patch+json",
    problems=("dataset_not_found", "dataset_fixed"),
)
def publish(name: str, body: DatasetPatch) -> DatasetDetail:
    """Publish an uploaded dataset of the caller to all owners, or withdraw it. Requires the scope `admin`.

    All owners can then train on it and look at it; jobs that they have started keep it after it is withdrawn.
    """
    provided(DatasetUploads).publish(name, shared=body.shared, by=actor())
    return detail(core().repository.look_up(name, owner()))


@blueprint.delete("/datasets/<name>")
@endpoint(
    TAG, None, status=204, problems=("dataset_not_found", "dataset_in_use", "dataset_fixed"), client="delete_dataset"
)
def delete(name: str) -> None:
    """Delete an uploaded dataset that no unfinished job uses.

    `mine` deletes all of its versions, `mine@1a2b3c4d` one. Jobs that were trained on it keep their results and their
    data: they can be forked, reproduced and used for predictions. The files are deleted with the last of these jobs.
    """
    provided(DatasetUploads).delete(name, by=actor())


@blueprint.get("/datasets/<name>/preview.png")
@endpoint(
    TAG,
    "image/png",
    **downloads.DRAWN,
    problems=("dataset_not_found", "not_found", "not_yet", "dataset_unavailable", "busy"),
)
def preview(name: str) -> Response:
    """Show a few images of each class, one column per class."""
    info = core().repository.look_up(name, owner())
    require_images(info)
    require_available(info)
    with slots.hold(slots.DRAWING):
        return downloads.send_picture(_preview(core().repository, info), "image/png")


@functools.lru_cache(_MAX_PREVIEWS)
def _preview(repository: DatasetRepository, info: DatasetInfo) -> Picture:
    return downloads.picture(grids.preview_png(repository.load(info), scale=2))


@blueprint.get("/datasets/<name>/validation/<int:index>.png")
@endpoint(
    TAG,
    "image/png",
    **downloads.DRAWN,
    problems=("dataset_not_found", "not_found", "not_yet", "dataset_unavailable"),
)
def validation_picture(name: str, index: int) -> Response:
    """Show one validation image, for example as input of `POST /jobs/{job_id}/predict`."""
    info = core().repository.look_up(name, owner())
    if info.problem is None and index >= info.validation_count:
        raise Problem(
            "not_found", f"there is no such image: the validation images are numbered 0 to {info.validation_count - 1}"
        )
    require_images(info)
    require_available(info)
    data = grids.image_png(core().repository.load(info).validation.inputs[index])
    return downloads.send_picture(downloads.picture(data), "image/png")


content_blueprint: Final = Blueprint("dataset_content", __name__)

_PROBLEMS: Final = ("dataset_not_found", "not_yet", "dataset_unavailable", "wrong_dataset_kind")
_MAX_NUMBERS: Final = 2**22
"""Maximum number of values in all images of a response; pages of large images are shorter."""


@content_blueprint.get("/datasets/<name>/examples")
@endpoint(TAG, ExampleList, query=ImagesQuery, problems=_PROBLEMS)
def examples(name: str, query: ImagesQuery) -> ExampleList:
    """Show images of a dataset, in the order of the data or with the classes mixed.

    A page of large images has fewer than `limit`.
    """
    info = _find(name, DatasetKind.IMAGES)
    limit = max(1, min(query.limit, _MAX_NUMBERS // math.prod(info.image_shape)))
    page = provided(DatasetExplorer).page(
        info, query.part, query.label, start=int(query.cursor or 0), limit=limit, mixed=query.order == "mixed"
    )
    return ExampleList(**examples_page(page, info))


@content_blueprint.get("/datasets/<name>/rows")
@endpoint(TAG, RowList, query=ExamplesQuery, problems=_PROBLEMS)
def rows(name: str, query: ExamplesQuery) -> RowList:
    """Show rows of a table, in the order of the data."""
    info = _find(name, DatasetKind.TABLE)
    page = provided(DatasetExplorer).page(
        info, query.part, query.label, start=int(query.cursor or 0), limit=query.limit
    )
    return RowList(**examples_page(page, info))


@content_blueprint.get("/datasets/<name>/columns")
@endpoint(TAG, TableColumns, problems=(*_PROBLEMS, "busy"), client="dataset_columns")
def columns(name: str) -> TableColumns:
    """Show statistics of the columns of a table."""
    return table_columns(_find(name, DatasetKind.TABLE))


def table_columns(info: DatasetInfo) -> TableColumns:
    """The statistics of a table whose files are available."""
    with slots.hold(slots.COMPUTING):
        statistics = provided(DatasetExplorer).column_statistics(info)
    return TableColumns.from_row(statistics)


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
