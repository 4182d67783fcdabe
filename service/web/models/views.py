"""Inference: classify images or rows with a classifier, generate images with a GAN."""

from __future__ import annotations

from typing import Any, Final, TypeVar, cast

import numpy as np
from flask import Blueprint, Response
from numpy.typing import NDArray
from pydantic import Field

from service.access.keys import Scope
from service.application.models import GenerateRequest, PredictRequest
from service.datasets.info import DatasetInfo
from service.errors import SpecError
from service.pictures import animations, grids
from service.spec import validation
from service.spec.schema import Kind, StrictModel
from service.web.http import problems, slots
from service.web.http.endpoint import Result, endpoint
from service.web.http.schemas import ResponseModel
from service.web.inference import generation, loading, predictions
from service.web.inference.generation import Generated
from service.web.inference.loading import dataset_of, job_of
from service.web.inference.predictions import Predicted

blueprint: Final = Blueprint("inference", __name__)

TAG: Final = "Inference"
_MAX_LISTED_VALUES: Final = 1000
"""Maximum number of unknown values in a response."""

B = TypeVar("B", bound=StrictModel)


class UnknownValue(ResponseModel):
    """A value that is not a category of its column and was treated as missing."""

    row: int = Field(description="Index of the row, from 0.")
    column: str
    value: str


class PredictAnswer(ResponseModel):
    """The predictions of a classifier, in the order of the images or rows."""

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
    document=PredictRequest,
    invalid_body="invalid_input",
    problems=loading.PROBLEMS,
    scope=Scope.READ,
)
def predict(job_id: str, document: Any) -> PredictAnswer:
    """Classify images, or rows of a table.

    `images` are PNG, JPEG, WebP, BMP or GIF files in base64, or numbers in [0, 1], where 0 is black. They are converted
    to grey or colour, as the dataset is. For a dataset that was imported from image files, they are scaled to cover its
    image size and cropped evenly, as at the import. For one of arrays, their sides are scaled to its image size; `fit`
    crops and centres a drawing like MNIST digits, and crops evenly in colour.
    `invert` is for dark drawings on a light background. `checkpoint` is `best`, `latest` or an epoch number;
    `GET /jobs/{job_id}/checkpoints` lists the stored ones. To keep all checkpoints, set
    `"checkpoint": {"keep_last": 1000}` in the spec.

    `rows` are for jobs that are trained on a table: `{"rows": [{"age": 41, "city": "Oslo"}]}`. A column that is left
    out has no value, and `absent_columns` names it; an unknown column is an error. A category that the data do not have
    counts as missing, and `unknown_values` names it.
    """
    job = job_of(job_id, Kind.CLASSIFIER)
    body = _validate(PredictRequest, document)
    info = dataset_of(job)
    return _predict_answer(predictions.predict(job, body, info), info)


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
    job = job_of(job_id, Kind.GAN)
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


def _predict_answer(predicted: Predicted, info: DatasetInfo) -> PredictAnswer:
    unknown = predicted.unknown_values
    return PredictAnswer(
        probabilities=predicted.predictions.probabilities.tolist(),
        classes=predicted.predictions.classes.tolist(),
        class_names=list(info.class_names),
        checkpoint=predicted.epoch,
        unknown_values=None
        if unknown is None
        else [
            UnknownValue(row=index, column=column, value=value) for index, column, value in unknown[:_MAX_LISTED_VALUES]
        ],
        absent_columns=predicted.absent_columns,
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
