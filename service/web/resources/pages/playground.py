"""The Play page: a network and its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from service.datasets.errors import DatasetError
from service.datasets.info import DatasetInfo
from service.datasets.tables.values import TIME, written
from service.spec import sent_images
from service.storage.tables import Artifact, Job
from service.web.inference.loading import dataset_or_none, is_table
from service.web.schemas.files import checkpoint_items
from service.web.schemas.jobs import job_detail
from service.web.services import services


def represent(job: Job, files: Sequence[Artifact]) -> dict[str, Any]:
    """The values of the template.

    Args:
        files: the job's checkpoints.
    """
    shown = job_detail(job)
    return {"job": shown, "facts": _facts(job, files) | {"urls": shown.urls.model_dump()}}


def _facts(job: Job, files: Sequence[Artifact]) -> dict[str, Any]:
    """What the scripts of the page know of the network."""
    info, items = dataset_or_none(job), checkpoint_items(job, files)
    return {
        "checkpoints": [{"epoch": item.epoch, "best": item.best, "latest": item.latest} for item in items],
        "start": next((place for place, item in enumerate(items) if item.best), 0),
        "seed": job.resolved["seed"],
        "conditional": job.resolved.get("conditional", False),
        "latent": job.resolved.get("latent"),
        "class_names": list(info.class_names) if info else [],
        **_images(info),
        "sent": _SENT,
        "fields": _fields(job, info),
    }


def _images(info: DatasetInfo | None) -> dict[str, Any]:
    """What images the network expects, and whether it sees the middle of an opened file, as it is."""
    if info is None:
        return {"colour": False, "crops": False, "shape": []}
    is_colour = len(info.image_shape) > 2
    return {"colour": is_colour, "crops": info.has_photos, "shape": list(info.image_shape[:2])}


_SENT: Final = {
    "bytes": sent_images.SENT_UNCHANGED_BYTES,
    "pixels": sent_images.SENT_UNCHANGED_PIXELS,
    "png_side": sent_images.MAX_SIDE,
    "side": sent_images.SENT_SIDE,
}
"""Which files are sent as they are, and the side length of others."""


def _fields(job: Job, info: DatasetInfo | None) -> list[dict[str, Any]] | None:
    """The columns of a row with a typical value of each, and the notation of its numbers if it is stated.

    ``None``: the job is trained on images.
    """
    if not is_table(job, info):
        return None
    known = {column["name"]: column for column in info.columns} if info else {}
    fitted = (job.provenance or {}).get("preprocessing", {"columns": []})["columns"]
    frequent = _most_frequent(info) if info and any("categories" in column for column in fitted) else {}
    return [_field(column, known.get(column["name"], {}), frequent.get(column["name"])) for column in fitted]


def _most_frequent(info: DatasetInfo) -> dict[str, str]:
    """The most frequent category of each column, if the data can be read."""
    try:
        found = services().explorer.column_statistics(info)
    except DatasetError:
        return {}
    return {column.name: column.categories[0][0] for column in found.columns if column.categories}


def _field(column: Mapping[str, Any], known: Mapping[str, Any], frequent: str | None) -> dict[str, Any]:
    field = {"name": column["name"], "type": column["type"]}
    if "categories" in column:
        usual = frequent if frequent in column["categories"] else column["categories"][0]
        return field | {"categories": column["categories"], "usual": usual}
    ends = [known[name] for name in ("min", "max") if name in known]
    if column["type"] == "date":
        form = TIME if column["format"] == TIME else "iso"
        usual = written(column["mean"] if form == TIME else round(column["mean"]), form)
        shown = [written(end, form) for end in ends]
    else:
        usual = _numeral(column["mean"], 4, column)
        shown = [_numeral(end, 8, column) for end in ends]
    notation = {name: column[name] for name in ("decimal", "group") if name in column}
    return field | notation | {"usual": usual, "range": " to ".join(shown)}


def _numeral(value: float, digits: int, column: Mapping[str, Any]) -> str:
    """A number as it is read in a column: with its decimal sign, and its percent sign; never in scientific notation."""
    text = f"{Decimal(f'{value:.{digits}g}'):f}"
    return text.replace(".", column.get("decimal", ".")) + ("%" if column.get("percent") else "")
