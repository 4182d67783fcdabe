"""Datasets: list, show, upload and delete them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from flask import Blueprint, Response, request

from service.application.datasets import DatasetUploads, ReceivedFiles
from service.web.core.core import core, owner, provided
from service.web.files import uploads
from service.web.files.drawings import Drawings
from service.web.files.upload_progress import ProgressBoard, ProgressRecorder
from service.web.files.uploads import UploadForm
from service.web.gate.access_checks import actor
from service.web.http import downloads, requests, slots
from service.web.http.endpoint import Result, endpoint
from service.web.http.problems import Problem
from service.web.resources.service import dataset_content
from service.web.schemas.datasets import DatasetDetail, DatasetList, UploadItem, dataset_item

blueprint: Final = Blueprint("datasets", __name__)

TAG: Final = "Datasets"


@blueprint.get("/datasets")
@endpoint(TAG, DatasetList, page="/ui/datasets")
def show_list() -> DatasetList:
    """List the available datasets."""
    return DatasetList(data=[dataset_item(info) for info in core().repository.catalogue(owner())])


@blueprint.post("/datasets")
@endpoint(
    TAG,
    DatasetDetail,
    status=201,
    form=UploadForm,
    headers=("Upload-Id",),
    problems=(
        "invalid_parameter",
        "malformed_form",
        "too_slow",
        "dataset_exists",
        "dataset_space_exceeded",
        "body_too_large",
        "unsupported_media_type",
        "invalid_upload",
        "too_many_uploads",
        "storage_full",
        "quota_exceeded",
    ),
)
def upload() -> Result:
    """Upload a dataset, or a new version of one.

    A name refers to its newest version, `name@1a2b3c4d` to the version whose SHA-256 starts with these digits. A
    job keeps the version that it was submitted with.

    Images with their classes: a zip or tar archive with a folder of image files for each class, an NPZ archive, or
    IDX files, plain or gzipped; see the fields of the form. Or a table: a CSV or TSV file, of which one column,
    `target`, holds the class. In the response, `columns` has the type and the missing values of each column that is
    used; `report` lists what was left out: columns, and the first 100 rejected rows by line.

    The files are read in a sandbox. Other owners cannot see the dataset. The response is sent when everything is
    stored. With an `Upload-Id`, `GET /uploads/{upload_id}` returns the progress.
    """
    upload_id = requests.upload_id()
    progress = provided(ProgressBoard).upload(owner(), upload_id, request.content_length)
    with slots.hold(slots.UPLOADS), progress as recorder:
        core().quotas.check_upload(owner(), request.content_length or 1)
        info = provided(DatasetUploads).add(
            lambda folder: _receive(folder, recorder), by=actor(), on_progress=recorder.read
        )
    return dataset_content.detail(info), {"Location": f"/datasets/{info.name}"}


@blueprint.get("/uploads/<upload_id>")
@endpoint(TAG, UploadItem)
def show_upload(upload_id: str) -> UploadItem:
    """Show the progress of an upload that is being received or read.

    Its sender chooses the id and may ask before the first byte has arrived: an upload that has not begun, or has
    ended, is `absent`.
    """
    return UploadItem.represent(provided(ProgressBoard).look_up(owner(), upload_id), id=upload_id)


def _receive(folder: Path, recorder: ProgressRecorder) -> ReceivedFiles:
    quotas, uploader = core().quotas, owner()
    form = uploads.receive(
        folder,
        max_bytes=uploads.MAX_UPLOAD_BYTES,
        count=lambda received: quotas.count_upload(uploader, received),
        on_received=recorder.received,
    )
    return ReceivedFiles(
        name=form.name,
        files=form.files,
        fraction=form.validation_fraction,
        photos=form.photo_options,
        table=form.table_options,
    )


@blueprint.get("/datasets/<name>")
@endpoint(TAG, DatasetDetail, problems=("dataset_not_found",), page="/ui/datasets/{name}")
def show(name: str) -> DatasetDetail:
    """Show a dataset, with the number of examples of each class."""
    return dataset_content.detail(core().repository.look_up(name, owner()))


@blueprint.delete("/datasets/<name>")
@endpoint(TAG, None, status=204, problems=("dataset_not_found", "dataset_in_use", "dataset_fixed"))
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
    other_media=downloads.AS_OCTETS,
    headers=("If-None-Match",),
    also={304: "The client has it."},
    problems=("dataset_not_found", "not_found", "not_yet", "dataset_unavailable", "busy"),
)
def preview(name: str) -> Response:
    """Show a few images of each class, one column per class."""
    picture = provided(Drawings).preview(core().repository.look_up(name, owner()))
    return downloads.send_picture(picture, "image/png")


@blueprint.get("/datasets/<name>/validation/<int:index>.png")
@endpoint(
    TAG,
    "image/png",
    other_media=downloads.AS_OCTETS,
    headers=("If-None-Match",),
    also={304: "The client has it."},
    problems=("dataset_not_found", "not_found", "not_yet", "dataset_unavailable"),
)
def validation_picture(name: str, index: int) -> Response:
    """Show one validation image, for example as input of `POST /jobs/{job_id}/predict`."""
    info = core().repository.look_up(name, owner())
    if info.problem is None and index >= info.validation_count:
        raise Problem(
            "not_found", f"there is no such image: the validation images are numbered 0 to {info.validation_count - 1}"
        )
    return downloads.send_picture(provided(Drawings).validation_picture(info, index), "image/png")
