"""Datasets: list, show, upload and delete them."""

from __future__ import annotations

import threading
from typing import Final

import structlog
from flask import Blueprint, Response, request

from service.datasets.importer import ImportedDataset
from service.datasets.sandbox import import_in_sandbox
from service.errors import NoSpaceLeft, UploadExists
from service.jobs import uploads
from service.storage import ids
from service.storage.tables import Upload
from service.web.endpoints import Result, endpoint
from service.web.files import downloads, receiving
from service.web.files.receiving import UploadForm
from service.web.middleware.guard import actor
from service.web.middleware.problems import Problem
from service.web.resources.pages import service_pages
from service.web.schemas.datasets import DatasetItem, DatasetList, dataset_item
from service.web.services import owner, services

blueprint: Final = Blueprint("datasets", __name__)

TAG: Final = "Datasets"
_READERS: Final = 4
"""How many uploads are read at a time: each takes a core for as long."""

_log = structlog.get_logger("tapeline.web")
_slots: Final = receiving.UploadSlots()
_reading: Final = threading.BoundedSemaphore(_READERS)


@blueprint.get("/datasets")
@endpoint(TAG, DatasetList, page=service_pages.datasets)
def show_list() -> DatasetList:
    """List the available datasets."""
    return DatasetList(data=[dataset_item(info) for info in services().shelf.catalogue(owner())])


@blueprint.post("/datasets")
@endpoint(
    TAG,
    DatasetItem,
    status=201,
    form=UploadForm,
    problems=(
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

    A name stands for its newest version, `name@1a2b3c4d` for the version whose SHA-256 starts with these digits. A
    job keeps the version that it was submitted with.

    Greyscale images with their classes, as one NPZ archive or as IDX files, plain or gzipped; see the fields of the
    form. The files are read in a sandbox. Other owners cannot see the dataset.
    """
    here = services()
    with _slots.acquire(owner()):
        here.quotas.upload(owner(), request.content_length or 1)
        with here.database.read() as session:
            uploads.check_space(session, owner(), at_most=here.quotas.limits.datasets)
        name = _import_dataset(ids.new_id("ds"))
    info = services().shelf.describe(name, owner())
    return dataset_item(info), {"Location": f"/datasets/{info.name}"}


def _import_dataset(upload_id: str) -> str:
    """Receive, read and keep an upload; gives its name."""
    files = services().uploads
    try:
        folder = files.begin(upload_id)
        form = receiving.receive(
            folder,
            max_bytes=receiving.MAX_UPLOAD_BYTES,
            count=lambda received: services().quotas.uploaded(owner(), received),
        )
        _check_name(form.name)
        arrays = folder / "arrays"
        arrays.mkdir()
        with _reading:
            taken = import_in_sandbox(form.files, arrays, fraction=form.validation_fraction)
        files.finish(upload_id, arrays)
    except OSError as error:
        files.discard(upload_id)
        _log.error("an upload could not be stored", error=str(error))
        raise Problem("storage_full", f"the upload could not be stored ({error.strerror or error})") from error
    except BaseException:
        files.discard(upload_id)
        raise
    try:
        stored = _store(upload_id, form.name, taken)
    except (UploadExists, NoSpaceLeft):
        files.discard(upload_id)
        raise
    if stored != upload_id:
        files.discard(upload_id)
    # After any other error nobody knows whether the row was stored; the scheduler removes what no row names.
    return form.name


def _check_name(name: str) -> None:
    """Refuse the name of a dataset that is no upload, before the files are read."""
    shelf = services().shelf
    if name in {info.name for info in shelf.catalogue(owner()) if info.upload_id is None}:
        raise Problem("dataset_exists", f"there already is a dataset {name!r}; use another name")


def _store(upload_id: str, name: str, taken: ImportedDataset) -> str:
    return uploads.store(
        services().database,
        Upload(
            id=upload_id,
            owner=owner() or "",
            name=name,
            image_rows=taken.rows,
            image_columns=taken.columns,
            classes=taken.classes,
            train_count=taken.train_count,
            validation_count=taken.validation_count,
            sha256=taken.sha256,
            size_bytes=taken.size_bytes,
        ),
        at_most=services().quotas.limits.datasets,
        by=actor(),
    )


@blueprint.get("/datasets/<name>")
@endpoint(TAG, DatasetItem, problems=("dataset_not_found",), page=service_pages.dataset)
def show(name: str) -> DatasetItem:
    """Show a dataset."""
    return dataset_item(services().shelf.look_up(name, owner()))


@blueprint.delete("/datasets/<name>")
@endpoint(TAG, None, status=204, problems=("dataset_not_found", "dataset_in_use", "dataset_fixed"))
def delete(name: str) -> Response:
    """Delete an uploaded dataset that no unfinished job uses.

    `mine` deletes all of its versions, `mine@1a2b3c4d` one. Jobs that were trained on it keep their results and their
    data: they can be forked, reproduced and used for predictions. The files are deleted with the last of these jobs.
    """
    here = services()
    gone = uploads.remove(here.database, name, owner=owner(), by=actor())
    if gone is None:
        here.shelf.look_up(name, owner())
        raise Problem("dataset_fixed", f"{name} is not an uploaded dataset")
    for upload_id in gone:
        here.uploads.discard(upload_id)
    return Response(status=204)


@blueprint.get("/datasets/<name>/preview.png")
@endpoint(
    TAG,
    "image/png",
    other_media=downloads.AS_OCTETS,
    headers=("If-None-Match",),
    also={304: "The client has it."},
    problems=("dataset_not_found", "not_yet", "dataset_unavailable"),
)
def preview(name: str) -> Response:
    """Show a few images of each class, one column per class."""
    picture = services().drawings.preview(services().shelf.look_up(name, owner()))
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
    info = services().shelf.look_up(name, owner())
    if info.problem is None and index >= info.validation_count:
        raise Problem(
            "not_found", f"there is no such image: the validation images are numbered 0 to {info.validation_count - 1}"
        )
    return downloads.send_picture(services().drawings.validation_picture(info, index), "image/png")
