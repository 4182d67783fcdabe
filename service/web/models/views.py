"""Inference: classify images or rows, predict numbers of rows, generate images with a GAN."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar, cast

import numpy as np
from flask import Blueprint, Response, request
from numpy.typing import NDArray
from pydantic import Field

from service import kinds
from service.access.keys import Scope
from service.application.models import GenerateRequest, PredictRequest
from service.datasets.info import DatasetInfo
from service.errors import SpecError
from service.kinds.kind import Ability
from service.pictures import animations, grids
from service.spec import validation
from service.spec.schema import StrictModel
from service.states import Task
from service.storage.tables import Epoch, Job
from service.web.core.core import core, owner
from service.web.http import downloads, problems, slots
from service.web.http.endpoint import Result, endpoint
from service.web.http.queries import Query, WhichCheckpoint
from service.web.http.schemas import ResponseModel
from service.web.inference import generation, loading, predictions
from service.web.inference.generation import Generated
from service.web.inference.loading import dataset_of, job_of
from service.web.inference.predictions import Predicted, PredictedFile
from service.wording import rounded

blueprint: Final = Blueprint("inference", __name__)

TAG: Final = "Inference"
CSV: Final = "text/csv"
_MAX_LISTED_VALUES: Final = 1000
"""Maximum number of unknown values in a response."""
_MAX_HEADER_BYTES: Final = 3000
"""Of ``Tapeline-Summary``: nginx accepts 4 KiB for all headers of a response."""

B = TypeVar("B", bound=StrictModel)


class UnknownValue(ResponseModel):
    """A value that is not a category of its column and was treated as missing."""

    row: int = Field(description="Index of the row, from 0.")
    column: str
    value: str


class PredictionSummary(ResponseModel):
    """What was found in a file of rows."""

    rows: int
    checkpoint: int = Field(description="Epoch of the checkpoint that was used.")
    unknown_values: int = Field(
        description="Number of values that are no category of their column and were treated as missing."
    )
    unknown_categories: dict[str, list[str]] = Field(description="These values by column, each once.")
    absent_columns: dict[str, int] = Field(
        description="Columns that the file lacks, treated as missing, with the number of rows."
    )
    missing_values: dict[str, int] = Field(
        description="Columns with empty cells, treated as missing values, with the number of these rows."
    )
    unused_columns: list[str] = Field(description="Columns that are copied only: neither model nor dataset has them.")
    notes: list[str] = Field(
        description="Sentences about the fields above, and about numbers that could be read in two ways."
    )


class PredictQuery(Query):
    """Which checkpoint predicts a file; a JSON body has it as a field."""

    checkpoint: WhichCheckpoint | None = Field(
        None, description="With a file: `best` (the default), `latest`, or an epoch number."
    )


class PredictAnswer(ResponseModel):
    """The predictions of a classifier or regressor, in the order of the images or rows."""

    values: list[float] | None = Field(
        None, description="Of a regressor: the predicted numbers, in the unit of the target; it has no classes."
    )
    target: str | None = Field(None, description="Of a regressor: the column that is predicted.")
    probabilities: list[list[float]] = Field(
        description="Probability of each class, in [0, 1]. With softmax they add up to 1; with sigmoid they are "
        "independent."
    )
    classes: list[int] = Field(description="The most probable class of each image or row.")
    class_names: list[str]
    checkpoint: int = Field(description="Epoch of the checkpoint that was used.")
    unknown_values: list[UnknownValue] | None = Field(
        None, description="With `rows`: values that are no category of their column and were treated as missing."
    )
    absent_columns: dict[str, int] | None = Field(
        None, description="With `rows`: columns that rows leave out, treated as missing, with the number of these rows."
    )
    typical_error: float | None = Field(
        None, description="Of a regressor: RMSE of the checkpoint on the validation data, in the unit of the target."
    )
    notes: list[str] | None = Field(
        None,
        description="With `rows`: sentences about empty cells, and about values outside the range of the training "
        "data.",
    )
    summary: PredictionSummary | None = Field(None, description="With a file of rows: what was found in it.")
    seen: list[list[list[float | list[float]]]] | None = Field(
        None,
        description="With `explain`: the preprocessed images, as rows of numbers in [0, 1]; in colour a pixel is a "
        "list of red, green and blue.",
    )
    saliency: list[list[list[float | list[float]]]] | None = Field(
        None,
        description="With `explain`: the gradient of the predicted class's logit with respect to each number of `seen` "
        "(0 black, 1 white). Positive values: brightness there increases the logit.",
    )


class GenerateAnswer(ResponseModel):
    """Generated images."""

    images: list[str] | list[list[list[float | list[float]]]] = Field(
        description="PNGs in base64, or rows of numbers in [0, 1], where 0 is black; in colour a pixel is a list of "
        "red, green and blue."
    )
    latent: list[list[float]] | None = Field(None, description="With `with_latent`: the latent points of the images.")
    checkpoint: int = Field(description="Epoch of the checkpoint that was used.")


@blueprint.post("/jobs/<job_id>/predict")
@endpoint(
    TAG,
    PredictAnswer,
    query=PredictQuery,
    document=PredictRequest,
    file_media=(downloads.OCTETS, CSV, "text/tab-separated-values"),
    invalid_body="invalid_input",
    problems=(*loading.PROBLEMS, "too_slow", "too_many_uploads"),
    scope=Scope.READ,
    other_media=(CSV,),
)
def predict(job_id: str, document: Any, query: PredictQuery) -> Result:
    """Classify images, or rows of a table; or predict the number that a regressor was trained on.

    `images` are PNG, JPEG, WebP, BMP or GIF files in base64, or numbers in [0, 1], where 0 is black. They are converted
    to grey or colour, as the dataset is. For a dataset that was imported from image files, they are scaled to cover its
    image size and cropped evenly, or padded, as at the import. For one of arrays, their sides are scaled to its
    image size; `fit` crops and centres a drawing like MNIST digits, and crops evenly in colour.
    `invert` is for dark drawings on a light background. `checkpoint` is `best`, `latest` or an epoch number;
    `GET /jobs/{job_id}/checkpoints` lists the stored ones. To keep all checkpoints, set
    `"checkpoint": {"keep_last": 1000}` in the spec.

    A regressor answers with `values`, in the unit of the target.

    `rows` are for jobs that are trained on a table: `{"rows": [{"age": 41, "city": "Oslo"}]}`. A column that is left
    out has no value, and `absent_columns` names it; an unknown column is an error. A category that the data do not have
    counts as missing, and `unknown_values` names it.

    Instead of JSON, the body may be a CSV or TSV file of such rows (`text/csv` or `application/octet-stream`, plain or
    gzipped, up to 256 MiB), with the names of the columns in its first line. It is read in the sandbox, as an upload
    is; numbers are read in the notation of the file. With `Accept: text/csv`, the response is the file with the
    prediction and the probabilities added, in the same delimiter, encoding and decimal sign; its header
    `Tapeline-Summary` is the `summary` as JSON, whose lists are shortened to fit.
    """
    job = job_of(job_id, Ability.PREDICT)
    if document is None:
        return predict_file(job, query.checkpoint or "best")
    if query.checkpoint is not None:
        raise problems.invalid_parameter("checkpoint", "is for files; in JSON, it is a field of the body")
    return predict_json(job, document)


def predict_json(job: Job, document: Any) -> Result:
    """The response to a JSON body, not validated yet."""
    body = _validate(PredictRequest, document)
    info = dataset_of(job)
    return _predict_answer(job, predictions.predict(job, body, info), info)


def predict_file(job: Job, checkpoint: str) -> Result:
    """The response to the file of the current request."""
    info, quotas, sender = dataset_of(job), core().quotas, owner()
    as_csv = request.accept_mimetypes.best_match(["application/json", CSV]) == CSV
    with ExitStack() as stack:
        stack.enter_context(slots.hold(slots.UPLOADS))
        quotas.check_upload(sender, request.content_length or 1)
        count = partial(quotas.count_upload, sender)
        predicted = predictions.predict_file(job, checkpoint, info, as_csv=as_csv, on_received=count)
        response = _file_response(job, predicted, info, as_csv=as_csv)
        response.call_on_close(stack.pop_all().close)  # its file is on the disk until then
    return response


def _file_response(job: Job, predicted: PredictedFile, info: DatasetInfo, *, as_csv: bool) -> Response:
    summary = PredictionSummary(checkpoint=predicted.epoch, **predicted.prepared.summary)
    error = _typical_error(job, predicted.epoch)
    if error is not None:
        summary.notes.append(f"typical error of {info.target}: {rounded(error)}, the RMSE on the validation data")
    if as_csv:
        headers = {"Tapeline-Summary": _summary_header(summary)}
        return downloads.send_file(predicted.output, predicted.prepared.media_type, headers)
    predicted.output.seek(0, os.SEEK_END)
    predicted.output.write(_end_of_json(predicted, summary, info, error).encode())
    return downloads.send_file(predicted.output, "application/json", {})


def _end_of_json(
    predicted: PredictedFile, summary: PredictionSummary, info: DatasetInfo, typical_error: float | None
) -> str:
    """The fields of a ``PredictAnswer`` after its probabilities and classes."""
    answer = PredictAnswer(
        probabilities=[],
        classes=[],
        class_names=list(info.class_names),
        target=_target_of(info),
        checkpoint=predicted.epoch,
        unknown_values=_unknown_values(predicted.prepared.listed),
        absent_columns=summary.absent_columns,
        typical_error=typical_error,
        notes=summary.notes,
        summary=summary,
    )
    written = {"values", "probabilities", "classes"} if answer.target else {"probabilities", "classes"}
    return answer.model_dump_json(exclude=written).removeprefix("{")


def _target_of(info: DatasetInfo) -> str | None:
    return info.target if info.task is Task.REGRESSION else None


def _unknown_values(values: Sequence[tuple[int, str, str]]) -> list[UnknownValue]:
    shown = values[:_MAX_LISTED_VALUES]
    return [UnknownValue(row=index, column=column, value=value) for index, column, value in shown]


def _summary_header(summary: PredictionSummary) -> str:
    """A summary as JSON in ASCII, short enough for the buffers of proxies."""
    fields = summary.model_dump(mode="json")
    notes = fields.pop("notes")
    for limit, length in ((20, 500), (10, 300), (3, 200), (0, 120), (0, 60)):
        # People read the notes, which say what the other fields list: they are shortened last.
        shown = {name: _shortened(value, limit, length) for name, value in fields.items()}
        text = json.dumps(shown | {"notes": _shortened(notes, max(limit, 5), length)})
        if len(text) <= _MAX_HEADER_BYTES:
            break
    return text


def _shortened(value: Any, limit: int, length: int) -> Any:
    match value:
        case str():
            return textwrap.shorten(value, length, placeholder=" ...")
        case list():
            return [_shortened(item, limit, length) for item in value[:limit]]
        case dict():
            return {name: _shortened(item, limit, length) for name, item in islice(value.items(), limit)}
    return value


@blueprint.post("/jobs/<job_id>/generate")
@endpoint(
    TAG,
    GenerateAnswer,
    document=GenerateRequest,
    invalid_body="invalid_input",
    problems=loading.PROBLEMS,
    scope=Scope.READ,
    other_media=("image/png", "image/gif"),
    other_responses={200: "A PNG with `format=grid`, a GIF with `format=film`."},
)
def generate(job_id: str, document: Any) -> Result:
    """Generate images.

    The latent points are `count` points of a `seed` (the same for every checkpoint), the first point of each of
    several `seeds`, or given as `latent`; `with_latent` returns them. With `steps`, the images interpolate from
    each point to the next. `class` is the class of all images, by name or number, for a GAN with `"conditional":
    true` in its spec; without it, the classes take turns. `format` is `png` (each image in base64), `array`
    (numbers in [0, 1]), `grid` (the response is one PNG) or `film` (the response is an animated GIF).
    """
    return generate_json(job_of(job_id, Ability.GENERATE), document)


def generate_json(job: Job, document: Any) -> Result:
    """The response to a JSON body, not validated yet."""
    body = _validate(GenerateRequest, document)
    generated = generation.generate(job, body, dataset_of(job))
    with slots.hold(slots.DRAWING):
        return _generate_answer(generated, body)


def _validate(model: type[B], document: Any) -> B:
    """The validated body. It is validated after the job was found, so that another owner's job is a 404 for any body.

    Raises:
        Problem: the body has faults.
    """
    try:
        return validation.read_body(model, document)
    except SpecError as error:
        raise problems.invalid_input(error.faults, error.total) from error


def _typical_error(job: Job, epoch: int) -> float | None:
    """The error of a prediction on the validation data after an epoch."""
    if (metric := kinds.of(job.kind).typical_error) is None:
        return None
    with core().database.read() as session:
        row = session.get(Epoch, (job.id, epoch))
    error = None if row is None else row.metrics.get(metric)
    return None if error is None else float(error)


def _predict_answer(job: Job, predicted: Predicted, info: DatasetInfo) -> PredictAnswer:
    unknown, values = predicted.unknown_values, predicted.predictions.values
    return PredictAnswer(
        values=None if values is None else values.tolist(),
        target=_target_of(info),
        probabilities=[] if values is not None else predicted.predictions.probabilities.tolist(),
        classes=predicted.predictions.classes.tolist(),
        class_names=list(info.class_names),
        checkpoint=predicted.epoch,
        unknown_values=None if unknown is None else _unknown_values(unknown),
        absent_columns=predicted.absent_columns,
        typical_error=_typical_error(job, predicted.epoch),
        notes=predicted.notes,
        seen=None if predicted.seen is None else _rounded(predicted.seen / 255, 3),
        saliency=None if predicted.saliency is None else _rounded(predicted.saliency, 5),
    )


def _generate_answer(generated: Generated, request: GenerateRequest) -> Result:
    headers = {"Tapeline-Checkpoint": str(generated.epoch)}
    match request.format:
        case "grid":
            data = grids.sample_grid(generated.pictures, scale=request.scale)
            return Response(data, content_type="image/png", headers=headers)
        case "film":
            data = animations.walk_gif(generated.pictures, scale=request.scale)
            return Response(data, content_type="image/gif", headers=headers)
        case "png":
            images: Any = [grids.image_base64(picture, scale=request.scale) for picture in generated.pictures]
        case "array":
            images = _rounded(generated.levels / 255, 5)
    latent = generated.points.tolist() if request.with_latent else None
    return GenerateAnswer(images=images, latent=latent, checkpoint=generated.epoch)


def _rounded(numbers: NDArray[Any], digits: int) -> list[Any]:
    return cast(list[Any], np.round(numbers.astype(np.float64), digits).tolist())
