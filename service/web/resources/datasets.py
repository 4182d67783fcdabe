"""Data sets: which there are, and what is in them."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response

from service import datasets
from service.datasets import DatasetInfo
from service.web import downloads, queries
from service.web.answers import as_json
from service.web.operations import documented
from service.web.problems import Problem
from service.web.queries import NoQuery
from service.web.representations import DatasetItem, DatasetList, dataset_item
from service.web.services import services

blueprint: Final = Blueprint("datasets", __name__)

TAG: Final = "Data sets"


@blueprint.get("/datasets")
@documented(TAG, DatasetList)
def show_list() -> Response:
    """List the data sets that a spec may name."""
    queries.read_query(NoQuery)
    infos = datasets.catalogue(services().settings.data)
    return as_json(DatasetList(data=[dataset_item(info) for info in infos]))


@blueprint.get("/datasets/<name>")
@documented(TAG, DatasetItem, problems=("dataset_not_found",))
def show(name: str) -> Response:
    """Show a data set."""
    queries.read_query(NoQuery)
    return as_json(dataset_item(_find(name)))


@blueprint.get("/datasets/<name>/preview.png")
@documented(
    TAG,
    "image/png",
    headers=("If-None-Match",),
    also={304: "The client has it."},
    problems=("dataset_not_found", "not_yet", "dataset_unavailable"),
)
def preview(name: str) -> Response:
    """Show a few pictures of each class, one column a class."""
    queries.read_query(NoQuery)
    picture = services().drawings.preview(_find(name))
    return downloads.send_picture(picture, "image/png")


@blueprint.get("/datasets/<name>/validation/<int:index>.png")
@documented(
    TAG,
    "image/png",
    headers=("If-None-Match",),
    also={304: "The client has it."},
    problems=("dataset_not_found", "not_found", "not_yet", "dataset_unavailable"),
)
def validation_picture(name: str, index: int) -> Response:
    """Show one validation picture, as it is: something for `POST /jobs/{job_id}/predict`."""
    queries.read_query(NoQuery)
    info = _find(name)
    if info.problem is None and index >= info.validation_count:
        raise Problem("not_found", f"the data set has {info.validation_count} validation pictures, from 0 on")
    return downloads.send_picture(services().drawings.validation_picture(info, index), "image/png")


def _find(name: str) -> DatasetInfo:
    """A data set, also a broken one: it is listed with what is wrong with it.

    Raises:
        DatasetNotFound: there is none of that name.
    """
    root = services().settings.data
    try:
        return datasets.describe(name, root)
    except datasets.DatasetBroken:
        listed = {info.name: info for info in datasets.catalogue(root)}
        if name not in listed:
            raise
        return listed[name]
