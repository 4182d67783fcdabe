"""Predictions for a request, which is checked against the job's data: from images, or from rows of a
table."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from service.application.models import MAX_NUMBERS, PredictRequest
from service.datasets.info import DatasetInfo
from service.datasets.sandbox import prepare_in_sandbox, write_in_sandbox
from service.datasets.tables import prediction_files
from service.datasets.tables.prediction_files import PreparedFile, RowsRefused
from service.datasets.tables.rows import missing_notes, missing_values, range_notes, read_rows
from service.datasets.uploads import UploadFiles
from service.errors import Fault, StorageFull
from service.spec.strict_json import pointer_step
from service.states import DatasetKind
from service.storage.artifacts import ArtifactDamaged
from service.storage.ids import new_id
from service.storage.tables import Artifact, Job
from service.web.core.core import core
from service.web.http import problems, requests, slots
from service.web.inference.images import PixelValues, pixel_values_of, too_much
from service.web.inference.loading import inference, with_network

if TYPE_CHECKING:
    from service.models.kinds import Predictions
    from service.models.predicting import LoadedModel

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """The predictions for a request."""

    predictions: Predictions
    epoch: int
    """Of the checkpoint that was used."""
    unknown_values: Sequence[tuple[int, str, str]] | None = None
    """Row, column and value of each unknown category; ``None`` for images."""
    absent_columns: Mapping[str, int] | None = None
    """Columns that rows leave out, with the number of these rows; ``None`` for images."""
    notes: Sequence[str] | None = None
    """Sentences about empty cells and unusual values; ``None`` for images."""
    seen: PixelValues | None = None
    """With ``explain``: the prepared images, from 0 to 255."""
    saliency: PixelValues | None = None


def predict(job: Job, request: PredictRequest, info: DatasetInfo) -> Predicted:
    """Classify the images or rows of a request.

    Raises:
        Problem: they do not fit the job's data, or some cannot be read; the problem names each.
    """
    _check_kind(request, info)
    if request.rows is not None:
        return with_network(job, request.checkpoint, info, partial(_predict_rows, rows=request.rows, info=info))
    levels = pixel_values_of(request.images or [], request, info)
    if request.explain and levels.size > MAX_NUMBERS:
        raise too_much("#/explain", f"{len(levels)} images have {levels.size} pixels", MAX_NUMBERS)
    return with_network(job, request.checkpoint, info, partial(_predict_images, levels=levels, explain=request.explain))


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedFile:
    """The predictions for the rows of a file."""

    prepared: PreparedFile
    epoch: int
    """Of the checkpoint that was used."""
    output: IO[bytes]
    """The file with the predictions; or the beginning of a JSON object, which has the probabilities and classes."""


def predict_file(
    job: Job, checkpoint: str, info: DatasetInfo, *, as_csv: bool, on_received: Callable[[int], None]
) -> PredictedFile:
    """Classify the rows of the CSV file that is the body of the request.

    Args:
        on_received: called with the number of bytes of each piece.

    Raises:
        Problem: the file cannot be read, or does not fit the job's data.
        StorageFull: there is no room for it.
    """
    if info.kind is not DatasetKind.TABLE:
        detail = "the job is trained on images: send images as JSON"
        raise problems.invalid_input([Fault(pointer="#", detail=detail, code="unsuitable")])
    columns = with_network(job, checkpoint, info, _columns)
    # Beside the uploads: the temporary folder may be small, or in memory.
    try:
        with UploadFiles.of(core().settings).scratch(new_id("rows")) as folder:  # the response has the output open
            requests.receive_file(folder / prediction_files.ROWS, on_received)
            return _predict_in(folder, job, checkpoint, info, columns, as_csv=as_csv)
    except RowsRefused as error:
        raise problems.invalid_input(error.faults) from error
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise StorageFull(str(error.strerror or error)) from error


def _predict_in(
    folder: Path,
    job: Job,
    checkpoint: str,
    info: DatasetInfo,
    columns: Sequence[Mapping[str, Any]],
    *,
    as_csv: bool,
) -> PredictedFile:
    with slots.hold(slots.IMPORTS):
        unused = [*info.unused_columns, (info.report or {}).get("split", "")]
        prepared = prepare_in_sandbox(folder, columns=columns, unused=unused, class_names=info.class_names)
    shape = prepared.summary["rows"], len(columns)
    inputs = np.memmap(folder / prediction_files.INPUTS, np.float64, "r", shape=shape)

    def run(model: LoadedModel, row: Artifact) -> int:
        with (
            (folder / prediction_files.CLASSES).open("wb") as classes,
            (folder / prediction_files.PROBABILITIES).open("wb") as probabilities,
        ):
            for start in range(0, len(inputs), prediction_files.BLOCK_ROWS):
                block = inference().predict(model, inputs[start : start + prediction_files.BLOCK_ROWS])
                classes.write(block.classes.astype(np.int64).tobytes())
                results = block.probabilities if block.values is None else block.values
                probabilities.write(results.astype(np.float64).tobytes())
        return row.epoch

    epoch = with_network(job, checkpoint, info, run)
    prepared.summary["notes"] += range_notes(inputs, columns, info.columns)
    with slots.hold(slots.IMPORTS):
        write_in_sandbox(folder, prepared, info.class_names, as_csv=as_csv)
    return PredictedFile(prepared=prepared, epoch=epoch, output=(folder / prediction_files.OUTPUT).open("r+b"))


def _columns(model: LoadedModel, row: Artifact) -> Sequence[Mapping[str, Any]]:
    """The columns of a table's model."""
    if model.preprocessing is None:
        raise ArtifactDamaged(row.path, "it holds no preprocessing of a table")
    return model.preprocessing.columns


def _check_kind(request: PredictRequest, info: DatasetInfo) -> None:
    """Reject images for a table, and rows for a dataset of images."""
    is_table = info.kind is DatasetKind.TABLE
    if request.images is None and request.rows is None:
        expected = "rows: the job is trained on a table" if is_table else "images"
        pointer = "#/rows" if is_table else "#/images"
        raise problems.invalid_input([Fault(pointer=pointer, detail=f"is missing: send {expected}", code="missing")])
    if request.images is not None and request.rows is not None:
        raise problems.invalid_input(
            [Fault(pointer="#/rows", detail="cannot be combined with images", code="unsuitable")]
        )
    for name in ("fit", "invert", "explain"):
        if request.rows is not None and getattr(request, name):
            raise problems.invalid_input([Fault(pointer=f"#/{name}", detail="is for images", code="unsuitable")])
    if is_table and request.rows is None:
        names = ", ".join(repr(column["name"]) for column in info.columns[:20])
        detail = f"the job is trained on a table: send rows with the columns {names}"
        raise problems.invalid_input([Fault(pointer="#/images", detail=detail, code="unsuitable")])
    if not is_table and request.rows is not None:
        detail = "the job is trained on images: send images"
        raise problems.invalid_input([Fault(pointer="#/rows", detail=detail, code="unsuitable")])


def _predict_rows(
    model: LoadedModel, row: Artifact, *, rows: Sequence[Mapping[str, Any]], info: DatasetInfo
) -> Predicted:
    columns = _columns(model, row)
    result = read_rows(rows, columns, ignored=info.unused_columns)
    if result.faults:
        raise problems.invalid_input(
            [
                Fault(
                    pointer=f"#/rows/{index}" + ("" if column is None else f"/{pointer_step(column)}"),
                    detail=detail,
                    code="wrong_type" if suggestion is None else "unknown_field",
                    suggestion=suggestion or None,
                )
                for index, column, detail, suggestion in result.faults
            ]
        )
    return Predicted(
        predictions=inference().predict(model, result.inputs),
        epoch=row.epoch,
        unknown_values=result.unknown,
        absent_columns=result.absent,
        notes=[*missing_notes(missing_values(result, columns)), *range_notes(result.inputs, columns, info.columns)],
    )


def _predict_images(model: LoadedModel, row: Artifact, *, levels: PixelValues, explain: bool) -> Predicted:
    predictions = inference().predict(model, levels)
    if not explain:
        return Predicted(predictions=predictions, epoch=row.epoch)
    saliency = inference().saliency(model, levels, predictions.classes)
    return Predicted(predictions=predictions, epoch=row.epoch, seen=levels, saliency=saliency)
