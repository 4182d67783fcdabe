"""Predictions of a request: checked against the job's data, and made from images or rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from service.application.inference_requests import MAX_NUMBERS, PredictRequest
from service.datasets.info import DatasetInfo
from service.datasets.tables.rows import read_rows
from service.errors import Fault
from service.spec.strict_json import pointer_step
from service.states import DatasetKind
from service.storage.artifacts import ArtifactDamaged
from service.storage.tables import Artifact, Job
from service.web.inference.images import Levels, levels_of, too_much
from service.web.inference.loading import inference, with_network
from service.web.middleware import problems

if TYPE_CHECKING:
    from service.web.inference.model_runner import LoadedModel, Predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """The predictions for a request."""

    found: Predictions
    epoch: int
    """Of the checkpoint that was used."""
    unknown_values: Sequence[tuple[int, str, str]] | None = None
    """Row, column and value of each unknown category; ``None`` for images."""
    absent_columns: Mapping[str, int] | None = None
    """Columns that rows leave out, with the number of these rows; ``None`` for images."""
    seen: Levels | None = None
    """With ``explain``: the prepared images, from 0 to 255."""
    saliency: Levels | None = None


def predict(job: Job, asked: PredictRequest, info: DatasetInfo) -> Predicted:
    """Classify the images or rows of a request.

    Raises:
        Problem: they do not fit the job's data, or some cannot be read; the problem names each.
    """
    _check_kind(asked, info)
    if asked.rows is not None:
        return with_network(job, asked.checkpoint, info, partial(_of_rows, rows=asked.rows, info=info))
    levels = levels_of(asked.images or [], asked, info)
    if asked.explain and levels.size > MAX_NUMBERS:
        raise too_much("#/explain", f"{len(levels)} images have {levels.size} pixels", MAX_NUMBERS)
    return with_network(job, asked.checkpoint, info, partial(_of_images, levels=levels, explain=asked.explain))


def _check_kind(asked: PredictRequest, info: DatasetInfo) -> None:
    """Reject images for a table, and rows for a dataset of images."""
    is_table = info.kind is DatasetKind.TABLE
    if asked.images is None and asked.rows is None:
        what = "rows: the job is trained on a table" if is_table else "images"
        pointer = "#/rows" if is_table else "#/images"
        raise problems.invalid_input([Fault(pointer=pointer, detail=f"is missing: send {what}", code="missing")])
    if asked.images is not None and asked.rows is not None:
        raise problems.invalid_input(
            [Fault(pointer="#/rows", detail="cannot be combined with images", code="unsuitable")]
        )
    for name in ("fit", "invert", "explain"):
        if asked.rows is not None and getattr(asked, name):
            raise problems.invalid_input([Fault(pointer=f"#/{name}", detail="is for images", code="unsuitable")])
    if is_table and asked.rows is None:
        names = ", ".join(repr(column["name"]) for column in info.columns[:20])
        detail = f"the job is trained on a table: send rows with the columns {names}"
        raise problems.invalid_input([Fault(pointer="#/images", detail=detail, code="unsuitable")])
    if not is_table and asked.rows is not None:
        detail = "the job is trained on images: send images"
        raise problems.invalid_input([Fault(pointer="#/rows", detail=detail, code="unsuitable")])


def _of_rows(model: LoadedModel, row: Artifact, *, rows: Sequence[Mapping[str, Any]], info: DatasetInfo) -> Predicted:
    if model.preprocessing is None:
        raise ArtifactDamaged(row.path, "it holds no preprocessing of a table")
    read = read_rows(rows, model.preprocessing.columns, ignored=info.unused_columns)
    if read.faults:
        raise problems.invalid_input(
            [
                Fault(
                    pointer=f"#/rows/{index}" + ("" if column is None else f"/{pointer_step(column)}"),
                    detail=detail,
                    code="wrong_type" if suggestion is None else "unknown_field",
                    suggestion=suggestion,
                )
                for index, column, detail, suggestion in read.faults
            ]
        )
    found = inference().predict(model, read.inputs)
    return Predicted(found=found, epoch=row.epoch, unknown_values=read.unknown, absent_columns=read.absent)


def _of_images(model: LoadedModel, row: Artifact, *, levels: Levels, explain: bool) -> Predicted:
    found = inference().predict(model, levels)
    if not explain:
        return Predicted(found=found, epoch=row.epoch)
    saliency = inference().saliency(model, levels, found.classes)
    return Predicted(found=found, epoch=row.epoch, seen=levels, saliency=saliency)
