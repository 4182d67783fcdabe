"""The metrics that only regressors report."""

from __future__ import annotations

from typing import Final

from service.schema.metrics import Goal, MetricInfo

_PARTS: Final = {"train": 1, "val": 2, "test": 3}
"""The parts of a dataset, with the number of the colour of their metrics."""
_SCORED: Final = {
    "train": "on the training rows, while the weights change",
    "val": "on the validation rows",
    "test": "on the test part, scored once after the training",
}
_ERRORS: Final = {
    "rmse": ("RMSE", "Root of the mean squared error of the predictions, in the unit of the target"),
    "mae": ("MAE", "Mean absolute error of the predictions, in the unit of the target"),
}
METRICS: Final = {
    **{
        f"{part}_{name}": MetricInfo(
            f"{part} {label}", f"{text}, {_SCORED[part]}.", goal=Goal.MINIMIZE, series=_PARTS[part]
        )
        for name, (label, text) in _ERRORS.items()
        for part in _PARTS
    },
    **{
        f"{part}_r2": MetricInfo(
            f"{part} R²",
            f"Fraction of the target's variance that is predicted, {_SCORED[part]}; 0: no better than the mean.",
            goal=Goal.MAXIMIZE,
            series=_PARTS[part],
            can_be_negative=True,
            at_most_one=True,
        )
        for part in _PARTS
    },
    **{
        f"{part}_{name}_error": MetricInfo(
            f"{part} {label} standard error",
            f"Standard error of the {label}, from the spread of the errors {_SCORED[part]}.",
            series=series,
        )
        for series, (name, (label, _)) in enumerate(_ERRORS.items(), 1)
        for part in ("val", "test")
    },
}
