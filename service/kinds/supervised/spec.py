"""What the specs of classifiers and regressors share."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from service.kinds.supervised import FINDINGS
from service.schema.base import MAX_EPOCHS, StrictModel
from service.schema.layers import Layers
from service.schema.specs import AverageDecay, BaseSpec, TrainedNetwork, limited_to
from service.states import FindingCode


class StopMetric(StrEnum):
    """Metrics that early stopping can watch: losses should fall, accuracies rise."""

    VAL_LOSS = "val_loss"
    VAL_ACCURACY = "val_accuracy"
    TRAIN_LOSS = "train_loss"
    TRAIN_ACCURACY = "train_accuracy"


class EarlyStopping(StrictModel):
    """Ends the run before the last epoch when a metric stops improving. The job succeeds."""

    metric: StopMetric = StopMetric.VAL_LOSS
    """The metric to watch: a loss should fall, an accuracy rise."""
    patience: Annotated[int, Field(ge=1, le=MAX_EPOCHS)]
    """Number of epochs without improvement after which the run ends. Usually 5 to 20."""
    min_delta: Annotated[float, Field(ge=0, le=1e6, title="Minimum improvement")] = 0.0
    """Smaller changes than this do not count as improvement."""


class Health(StrictModel):
    """How to react to problems that the metrics show."""

    stop_on: Annotated[list[FindingCode], Field(max_length=10), limited_to(*FINDINGS)] = []
    """Fail the job as soon as one of these findings appears, instead of only reporting it. The last checkpoint is
    kept."""


class SupervisedSpec(BaseSpec):
    """Fields of the specs of one network that learns from examples with targets."""

    layers: Layers
    """The network, from input to output."""
    loss: StrictModel
    """The function to minimize."""
    average_decay: Annotated[AverageDecay, Field(title="Weight averaging (decay)")] = None
    """Validate and store a moving average of the weights over about 1 / (1 - decay) steps. Usually 0.99 to 0.9999, or
    none. It smooths out noise late in the run."""
    early_stopping: EarlyStopping | None = None
    """End the run when a metric stops improving."""
    health: Health = Health()
    """How to react to problems that the metrics show."""

    @property
    def trained_networks(self) -> Sequence[TrainedNetwork]:
        """Its only network."""
        network = TrainedNetwork(
            layers=self.layers,
            optimizer=self.optimizer,
            schedule=self.schedule,
            average_decay=self.average_decay,
        )
        return [network]

    @property
    def stop_on(self) -> Sequence[FindingCode]:
        """The findings that fail the job."""
        return self.health.stop_on
