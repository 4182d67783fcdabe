"""Whether a model can predict the examples of a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.datasets.errors import closest, quoted
from service.datasets.info import DatasetInfo
from service.states import DatasetKind
from service.wording import counted

_MAX_NAMED: Final = 20
"""Columns that are named one by one."""
_MIN_SIMILARITY: Final = 75
"""Minimum similarity, out of 100, at which another column seems to be meant."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """A reason why the examples are not those of the model."""

    detail: str
    suggestion: str | None = None


def columns_of(provenance: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]] | None:
    """The columns that a model was trained on, by the provenance of its job; ``None`` for images."""
    fitted = (provenance or {}).get("preprocessing")
    return None if fitted is None else fitted["columns"]


def misfits(columns: Sequence[Mapping[str, Any]] | None, image_shape: Sequence[int], data: DatasetInfo) -> list[Misfit]:
    """What keeps a model from predicting a dataset.

    Each column of the model must be in the dataset, with the same type. Further columns, other categories and another
    target do not matter: a category that the model does not know counts as missing.

    Args:
        columns: of the model's preprocessing; ``None`` for a model of images.
        image_shape: of the images that it was trained on.
    """
    if columns is None and data.kind is DatasetKind.TABLE:
        return [Misfit(f"{data.name} is a table, and the model predicts images of {_shape(image_shape)}")]
    if columns is None:
        if tuple(data.image_shape) == tuple(image_shape):
            return []
        shapes = _shape(data.image_shape), _shape(image_shape)
        return [Misfit("its images are {}, and the model predicts images of {}".format(*shapes))]
    if data.kind is not DatasetKind.TABLE:
        names = quoted([str(column["name"]) for column in columns])
        return [Misfit(f"{data.name} has images, and the model predicts rows with the columns {names}")]
    found = [misfit for column in columns if (misfit := _column_misfit(column, columns, data)) is not None]
    if len(found) > _MAX_NAMED:
        rest = counted(len(found) - _MAX_NAMED, "further column")
        return [*found[:_MAX_NAMED], Misfit(f"{rest} of the model are missing or have another type")]
    return found


def _column_misfit(column: Mapping[str, Any], columns: Sequence[Mapping[str, Any]], data: DatasetInfo) -> Misfit | None:
    name, known = str(column["name"]), {str(item["name"]): item for item in data.columns}
    if name in known:
        kind = known[name]["type"]
        if kind == column["type"]:
            return None
        remedy = f"upload the table again with the type {column['type']} for it"
        return Misfit(f"column {name!r} is a {kind} in {data.name}, and a {column['type']} in the model; {remedy}")
    if name == data.target:
        return Misfit(
            f"column {name!r} of the model is the target of {data.name}; upload the table again with another target, "
            "or send the file to POST /jobs/{id}/predict, which needs no target"
        )
    if name in data.unused_columns:
        return Misfit(f"column {name!r} of the model was left out of {data.name} at the import")
    free = [other for other in known if all(other != item["name"] for item in columns)]
    similar = closest(name, free, similarity=_MIN_SIMILARITY)
    hint = f"; it has {similar!r}" if similar else ""
    return Misfit(f"{data.name} has no column {name!r}, which the model uses{hint}", similar)


def _shape(shape: Sequence[int]) -> str:
    rows, columns, *channels = (*shape, 0, 0)[: max(2, len(shape))]
    return f"{rows} x {columns}" + (" in colour" if channels else "")
