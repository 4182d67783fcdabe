"""The Play page: a network and its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.datasets.errors import DatasetError
from service.datasets.tables.values import written
from service.storage.tables import Artifact, Job
from service.web.inference.loading import class_names, dataset_of, is_table
from service.web.schemas.files import checkpoint_items
from service.web.schemas.jobs import job_detail


def represent(job: Job, files: Sequence[Artifact]) -> dict[str, Any]:
    """The values of the template.

    Args:
        files: the job's checkpoints.
    """
    shown = job_detail(job)
    checkpoints = [
        {"epoch": item.epoch, "best": item.best, "latest": item.latest} for item in checkpoint_items(job, files)
    ]
    facts = {
        "urls": shown.urls.model_dump(),
        "checkpoints": checkpoints,
        "start": next((place for place, item in enumerate(checkpoints) if item["best"]), 0),
        "seed": job.resolved["seed"],
        "conditional": job.resolved.get("conditional", False),
        "latent": job.resolved.get("latent"),
        "class_names": class_names(job, None),
        **_images(job),
        "fields": _fields(job),
    }
    return {"job": shown, "facts": facts}


def _images(job: Job) -> dict[str, Any]:
    """What images the network expects, and whether it sees the middle of an opened file, as it is."""
    try:
        info = dataset_of(job)
    except DatasetError:
        return {"colour": False, "crops": False, "shape": []}
    is_colour = len(info.image_shape) > 2
    return {"colour": is_colour, "crops": is_colour or info.is_photos, "shape": list(info.image_shape[:2])}


def _fields(job: Job) -> list[dict[str, Any]] | None:
    """The columns of a row with a typical value of each; ``None``: the job is trained on images."""
    if not is_table(job):
        return None
    try:
        known = {column["name"]: column for column in dataset_of(job).columns}
    except DatasetError:
        known = {}
    fitted = (job.provenance or {}).get("preprocessing", {"columns": []})["columns"]
    return [_field(column, known.get(column["name"], {})) for column in fitted]


def _field(column: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    field = {"name": column["name"], "type": column["type"]}
    if "categories" in column:
        return field | {"categories": column["categories"], "usual": column["categories"][0]}
    ends = [known[name] for name in ("min", "max") if name in known]
    if column["type"] == "date":
        usual, shown = (
            written(round(column["mean"]), column["format"]),
            [written(end, column["format"]) for end in ends],
        )
    else:
        usual, shown = f"{column['mean']:.4g}", [f"{end:.6g}" for end in ends]
    return field | {"usual": usual, "range": " to ".join(shown)}
