"""Predictions of a classifier, images of a GAN, and what a checkpoint does with the validation data."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from service.spec.schema import MAX_EPOCHS
from service.web.http.queries import (
    Query,
    Text,
    WhichCheckpoint,
)
from service.web.http.schemas import Answer


class MatrixQuery(Query):
    """Which epoch to show."""

    checkpoint: WhichCheckpoint = Field(
        "latest",
        description="`best`, `latest`, or an epoch number. The matrix is stored with the metrics of an epoch, so it "
        "remains when the checkpoint is removed; `latest` is the last finished epoch.",
    )
    epoch: Annotated[int, Field(ge=1, le=MAX_EPOCHS)] | None = Field(
        None,
        json_schema_extra={"deprecated": True},
        description="Former name of `checkpoint`, for an epoch number.",
    )


class CellQuery(Query):
    """Which images to return, classified with which checkpoint."""

    checkpoint: WhichCheckpoint = Field("latest", description="`best`, `latest`, or an epoch number.")
    limit: int = Field(64, ge=1, le=256)
    v: Text | None = Field(None, description="Ignored; a new value makes a browser load the image again.")


class MistakesQuery(Query):
    """How many mistakes to return, and of which checkpoint."""

    checkpoint: WhichCheckpoint = Field("best", description="`best`, `latest`, or an epoch number.")
    limit: int = Field(24, ge=1, le=256)


class ExportQuery(Query):
    """Which checkpoint to export, and under which license."""

    checkpoint: WhichCheckpoint = Field(
        "best", description="`best`, `latest`, or an epoch number. `tensorboard` always has all epochs."
    )
    license: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]{0,99}$")] | None = Field(
        None,
        description="License of the model, an SPDX identifier such as `mit`, for the model card of `huggingface`. "
        "Default: that of the dataset.",
    )
    v: Text | None = Field(None, description="Ignored; a new value makes a browser load the file again.")


class CheckpointQuery(Query):
    """Which checkpoint to evaluate."""

    checkpoint: WhichCheckpoint = Field("best", description="`best`, `latest`, or an epoch number.")


class UnknownValue(Answer):
    """A value that is not a category of its column and was treated as missing."""

    row: int = Field(description="Index of the row, from 0.")
    column: str
    value: str


class PredictAnswer(Answer):
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


class GenerateAnswer(Answer):
    """Generated images."""

    images: list[str] | list[list[list[float | list[float]]]] = Field(
        description="PNGs in base64, or rows of numbers in [0, 1], where 0 is black; in colour a pixel is a list of "
        "red, green and blue."
    )
    latent: list[list[float]] | None = Field(None, description="With `with_latent`: the latent points of the images.")
    checkpoint: int = Field(description="Epoch of the checkpoint that was used.")


class ConfusionCell(Answer):
    """The validation images of one class that a checkpoint predicts as one class."""

    checkpoint: int = Field(description="Epoch of the checkpoint that was used.")
    count: int = Field(description="Number of images in the cell; at most `limit` are returned.")
    indices: list[int] = Field(description="Indices in the validation split, from 0.")
    confidences: list[float] = Field(description="Probability of the predicted class.")
    images: list[str] = Field(description="PNGs in base64; empty for a table.")
    rows: list[dict[str, Any]] | None = Field(
        None, description="Rows of a table, as values by column; null for images."
    )


class Mistake(Answer):
    """A validation image that a checkpoint classifies wrongly."""

    index: int = Field(description="Index in the validation split, from 0.")
    true_class: int
    predicted_class: int
    confidence: float = Field(description="Probability of the predicted class, in [0, 1].")
    true_confidence: float = Field(description="Probability of the true class.")
    image: str | None = Field(description="A PNG in base64; null for a row of a table.")
    row: dict[str, Any] | None = Field(None, description="A row of a table, as values by column; null for an image.")


class MistakeList(Answer):
    """The mistakes of a checkpoint, most confident first."""

    checkpoint: int = Field(description="Epoch of the checkpoint that was used.")
    count: int = Field(description="Number of misclassified images; at most `limit` are in `data`.")
    validation_count: int = Field(description="Images in the validation split.")
    class_names: list[str]
    data: list[Mistake]


class CalibrationBin(Answer):
    """Validation predictions within an interval of confidence."""

    low: float
    high: float
    count: int
    confidence: float | None = Field(description="Mean probability of the predicted class; null: the bin is empty.")
    accuracy: float | None = Field(description="Fraction of correct predictions; null: the bin is empty.")


class CalibrationAnswer(Answer):
    """Confidence against accuracy on the validation data."""

    checkpoint: int = Field(description="Epoch of the checkpoint that was used.")
    validation_count: int
    expected_error: float = Field(
        description="Expected calibration error: the mean distance of confidence and accuracy over all predictions. "
        "Training with `loss.label_smoothing` lowers confidence, by about as much."
    )
    bins: list[CalibrationBin] = Field(description="Ten, from 0 to 1.")


class ColumnImportance(Answer):
    """The importance of a column."""

    column: str
    mean: float = Field(description="Loss of accuracy when the column is shuffled; negative: a gain.")
    deviation: float = Field(description="Standard deviation over the repeats.")


class ImportanceAnswer(Answer):
    """The importance of each column of a table."""

    checkpoint: int = Field(description="Epoch of the checkpoint that was used.")
    accuracy: float = Field(description="Accuracy on the same rows without shuffling.")
    rows: int = Field(description="Number of validation rows used.")
    columns: list[ColumnImportance] = Field(description="In the order of the dataset.")
