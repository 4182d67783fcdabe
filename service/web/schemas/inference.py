"""Predictions of a classifier, images of a GAN, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from service.diagnosis.class_scores import class_scores
from service.web.http.schemas import Answer


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


class ClassScoreItem(Answer):
    """Precision, recall and F1 of a class."""

    class_name: str
    support: int = Field(description="Validation images of this class.")
    precision: float | None = Field(description="Null: no image was predicted as this class.")
    recall: float | None = Field(description="Null: there is no image of this class.")
    f1: float | None = Field(description="Null: the class is neither present nor predicted.")


class ConfusionMatrix(Answer):
    """A confusion matrix with its scores."""

    epoch: int
    class_names: list[str]
    matrix: list[list[int]] = Field(description="A row for each true class, a column for each predicted one.")
    per_class: list[ClassScoreItem] = Field(description="In the order of `class_names`.")
    macro_precision: float | None = Field(
        description="Mean precision of the classes that are present or predicted; 0 for one that is never predicted."
    )
    macro_f1: float | None = Field(description="Mean F1 of the classes that are present or predicted.")
    balanced_accuracy: float | None = Field(description="Mean recall of the classes that are present.")
    unscored_classes: list[str] = Field(
        description="Classes without validation images or rows: accuracy, loss and the means say nothing about them."
    )

    @classmethod
    def of(cls, epoch: int, class_names: Sequence[str], matrix: Sequence[Sequence[int]]) -> ConfusionMatrix:
        """The response for one epoch's matrix."""
        scores = class_scores(matrix)
        return cls(
            epoch=epoch,
            class_names=list(class_names),
            matrix=[list(row) for row in matrix],
            per_class=[
                ClassScoreItem.represent(item, class_name=name)
                for name, item in zip(class_names, scores.classes, strict=True)
            ],
            macro_precision=scores.macro_precision,
            macro_f1=scores.macro_f1,
            balanced_accuracy=scores.balanced_accuracy,
            unscored_classes=[name for name, item in zip(class_names, scores.classes, strict=True) if not item.support],
        )


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
