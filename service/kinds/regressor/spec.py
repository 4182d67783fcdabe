"""The spec of a regressor."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from service.kinds.supervised.spec import EarlyStopping, SupervisedSpec
from service.schema.base import StrictModel
from service.schema.layers import Layers
from service.schema.specs import Reduction
from service.states import Kind


class RegressorLossName(StrEnum):
    """The losses of a regressor."""

    SQUARED_ERROR = "squared_error"
    ABSOLUTE_ERROR = "absolute_error"
    HUBER = "huber"


class RegressorStopMetric(StrEnum):
    """Metrics of a regressor that early stopping can watch: all should fall, except ``val_r2``."""

    VAL_LOSS = "val_loss"
    VAL_RMSE = "val_rmse"
    VAL_MAE = "val_mae"
    VAL_R2 = "val_r2"
    TRAIN_LOSS = "train_loss"


class RegressorLoss(StrictModel):
    """The function that a regressor minimizes, of the target in standard deviations of the training part."""

    name: Annotated[RegressorLossName, Field(title="Function")]
    """squared_error predicts the mean. absolute_error predicts the median, which a few extreme targets hardly change.
    huber is the squared error up to one standard deviation, and the absolute error beyond it."""
    reduction: Reduction = Reduction.MEAN
    """Whether the gradient is that of the mean or of the sum of the losses of a batch. With sum, the learning rate
    must be lower by about the batch size."""


class RegressorEarlyStopping(EarlyStopping):
    """Ends the run before the last epoch when a metric stops improving. The job succeeds."""

    metric: RegressorStopMetric = RegressorStopMetric.VAL_LOSS  # type: ignore[assignment]  # other metrics
    """The metric to watch: losses and errors should fall, r2 rise."""


class RegressorSpec(SupervisedSpec):
    """Train a network that predicts a number from the other columns of a table."""

    kind: Literal[Kind.REGRESSOR]
    layers: Layers
    """The network, from input to output. The last layer is dense, with one unit and no activation (linear)."""
    loss: RegressorLoss
    """The function to minimize."""
    early_stopping: RegressorEarlyStopping | None = None
    """End the run when a metric stops improving."""
