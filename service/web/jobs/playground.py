"""The Play page: a network and its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from service import kinds
from service.datasets.errors import DatasetError
from service.datasets.exploration import DatasetExplorer
from service.datasets.info import DatasetInfo
from service.datasets.tables.cells import TIME
from service.datasets.tables.values import format_date
from service.storage.tables import Artifact, Job
from service.web.core.core import provided
from service.web.http.problems import Problem
from service.web.inference.loading import dataset_or_none, is_table
from service.web.jobs.result_schemas import Checkpoint, checkpoint_items
from service.web.jobs.schemas import job_detail
from tapeline.images import files as image_files


def values(job: Job, files: Sequence[Artifact], choice: str) -> dict[str, Any]:
    """The values of the template.

    Args:
        files: the job's checkpoints.
        choice: the one to start with: ``best``, ``latest`` or an epoch.
    """
    kind = kinds.of(job.kind)
    if not kind.trains:
        raise Problem("not_found", f"a {kind.title} {kind.remedy(None, job).removeprefix('it ')}")
    detail = job_detail(job)
    return {"job": detail, "facts": _facts(job, files, choice) | {"urls": detail.urls.model_dump()}}


def _facts(job: Job, files: Sequence[Artifact], choice: str) -> dict[str, Any]:
    """The facts about the network for the scripts of the page."""
    info, items = dataset_or_none(job), checkpoint_items(job, files)
    return {
        "checkpoints": [{"epoch": item.epoch, "best": item.best, "latest": item.latest} for item in items],
        "start": next((index for index, item in enumerate(items) if _is_chosen(item, choice)), 0),
        "seed": job.resolved["seed"],
        "conditional": job.resolved.get("conditional", False),
        "latent": job.resolved.get("latent"),
        "class_names": list(info.class_names) if info else [],
        **_images(info),
        "sent": _SENT,
        "fields": _fields(job, info),
    }


def _is_chosen(item: Checkpoint, choice: str) -> bool:
    return item.best if choice == "best" else item.latest if choice == "latest" else str(item.epoch) == choice


def _images(info: DatasetInfo | None) -> dict[str, Any]:
    """The images that the network expects, and whether it gets the middle of an opened file, otherwise
    unchanged."""
    if info is None:
        return {"colour": False, "crops": False, "pads": False, "shape": []}
    is_colour = len(info.image_shape) > 2
    shape = list(info.image_shape[:2])
    return {"colour": is_colour, "crops": info.has_photos, "pads": info.pads_photos, "shape": shape}


_SENT: Final = {
    "bytes": image_files.SENT_UNCHANGED_BYTES,
    "pixels": image_files.SENT_UNCHANGED_PIXELS,
    "png_side": image_files.MAX_SIDE,
    "side": image_files.SENT_SIDE,
}
"""Limits up to which files are sent unchanged, and the side length to which others are scaled."""


def _fields(job: Job, info: DatasetInfo | None) -> list[dict[str, Any]] | None:
    """The columns of a row with a typical value of each.

    ``None``: the job is trained on images.
    """
    if not is_table(job, info):
        return None
    dataset_columns = {column["name"]: column for column in info.columns} if info else {}
    fitted = (job.provenance or {}).get("preprocessing", {"columns": []})["columns"]
    usual = _usual_values(info) if info else {}
    return [_field(column, dataset_columns.get(column["name"], {}), usual.get(column["name"])) for column in fitted]


def _usual_values(info: DatasetInfo) -> dict[str, Any]:
    """The median or the most frequent category of each column, if the data can be read."""
    try:
        statistics = provided(DatasetExplorer).column_statistics(info)
    except DatasetError:
        return {}
    return {item.name: item.categories[0][0] if item.categories else item.median for item in statistics.columns}


def _field(column: Mapping[str, Any], dataset_column: Mapping[str, Any], found: Any) -> dict[str, Any]:
    field = {"name": column["name"], "type": column["type"]}
    if "categories" in column:
        usual = found if found in column["categories"] else column["categories"][0]
        return field | {"categories": column["categories"], "usual": usual}
    limits = [dataset_column[name] for name in ("min", "max") if name in dataset_column]
    if column["type"] == "date":
        time_format = TIME if column["format"] == TIME else "iso"
        usual = format_date(column["mean"] if time_format == TIME else round(column["mean"]), time_format)
        limit_texts = [format_date(limit, time_format) for limit in limits]
    else:
        usual = _numeral(column["mean"], 4, column) if found is None else _numeral(found, 15, column)
        limit_texts = [_numeral(limit, 8, column) for limit in limits]
    return field | {"usual": usual, "range": " to ".join(limit_texts)}


def _numeral(value: float, digits: int, column: Mapping[str, Any]) -> str:
    """A number in the notation of a column: with its decimal sign and percent sign; never in scientific
    notation."""
    text = f"{Decimal(f'{value:.{digits}g}'):f}"
    return text.replace(".", column.get("decimal", ".")) + ("%" if column.get("percent") else "")
