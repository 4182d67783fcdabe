"""Trained regressors."""

from __future__ import annotations

from typing import Final

import numpy as np

from service.datasets.tables.preprocessing import Preprocessing
from service.kinds.regressor.spec import RegressorSpec
from service.kinds.supervised.model import network
from service.models.kinds import Array, ModelOfKind, Predictions, classified


def _predictions(raw: Array, preprocessing: Preprocessing | None) -> Predictions:
    """The outputs in the unit of the target."""
    if preprocessing is None:
        return classified(raw, preprocessing)
    return Predictions(np.empty((len(raw), 0)), np.empty(0, np.int64), preprocessing.to_targets(raw[:, 0]))


MODEL: Final = ModelOfKind[RegressorSpec](network=network, predictions=_predictions)
