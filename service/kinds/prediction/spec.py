"""The spec of a batch prediction, as it is sent and as it is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from service.schema.base import Label, PlainText, StrictModel
from service.schema.specs import JobBudget
from service.states import JobKind

PREDICTIONS_EPOCH: Final = 1
"""A prediction counts as one epoch, whose steps are its rows."""


class PredictedPart(StrEnum):
    """The part of a dataset to predict."""

    ALL = "all"
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class PredictedData(StrictModel):
    """The dataset to predict."""

    name: Annotated[str, Field(min_length=1, max_length=129)]
    """The dataset to predict, in the shape of the one that the model was trained on. For an upload, a name means the
    newest version; `mine@1a2b3c4d` is the version of `mine` whose SHA-256 starts with these digits."""
    part: PredictedPart = PredictedPart.ALL
    """The part to predict; all is training, validation and test part in this order. The parts are those of the
    dataset, not those of a job's own split."""


class _Prediction(StrictModel):
    kind: Literal[JobKind.PREDICTION]
    """What to do."""
    name: PlainText | None = None
    """A name to find the job by. It need not be unique."""
    tags: Annotated[list[Label], Field(max_length=20)] = []
    """Labels to filter and group jobs by."""
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    """Up to 5, the order of your own jobs: higher ones start first. Urgent jobs, 6 to 9, start before those of all
    owners, if the owner's settings allow it."""
    budget: JobBudget | None = None
    """What the job may use before it pauses. None: no limit. A prediction that is resumed starts again."""


class PredictionSpec(_Prediction):
    """Predict a dataset with a trained classifier or regressor. The result is a CSV file."""

    model: Annotated[str, Field(min_length=1, max_length=200, examples=["job_01J00000000000000000000000@best"])]
    """The model: `digits@champion` or `digits:3`, or the id of a job for its best checkpoint, with `@best`, `@latest`
    or `@7` for another one. It is looked up once, at the submission."""
    dataset: PredictedData
    """The dataset to predict, and which part of it."""


class PinnedModel(StrictModel):
    """The model that a reference meant at the submission."""

    reference: str
    """As it was sent."""
    version: str | None = None
    """Of a registered model: `digits:3`."""
    job: str
    """The job that trained it."""
    checkpoint: int
    """The epoch of its checkpoint."""
    sha256: str
    """Of the checkpoint, in hex."""


class ResolvedPrediction(_Prediction):
    """The spec of a prediction with the model that its reference meant."""

    model: PinnedModel
    """The checkpoint that predicts."""
    dataset: PredictedData
    """The dataset to predict, and which part of it."""

    @property
    def epochs(self) -> int:
        """The number of epochs that it counts as."""
        return PREDICTIONS_EPOCH

    def hashed(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """What digests of the spec cover of its document: the checkpoint, however it was named."""
        return {**document, "model": self.model.sha256}


def read(document: Mapping[str, Any]) -> ResolvedPrediction:
    """Read the resolved spec of a prediction from the database."""
    return ResolvedPrediction.model_validate_json(json.dumps(document))
