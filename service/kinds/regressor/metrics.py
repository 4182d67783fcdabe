"""The metrics that only regressors report."""

from __future__ import annotations

from typing import Final

from service.schema.metrics import Chart, Goal, MetricInfo, Place

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
_CHARTS: Final = {
    f"{part}_{name}": chart
    for name, chart in (
        ("rmse", Chart("RMSE", Place.MAIN)),
        ("mae", Chart("mean absolute error")),
        ("r2", Chart("R²", Place.MAIN)),
    )
    for part in ("train", "val")
}
_STANDARD_ERRORS: Final = Chart("standard errors")
_TILES: Final = {"val_rmse": 1, "val_r2": 2, "val_mae": 3, "train_rmse": 5}
_TEST_SCORES: Final = {"test_rmse": 1, "test_mae": 2, "test_r2": 3}
METRICS: Final = {
    **{
        f"{part}_{name}": MetricInfo(
            f"{part} {label}",
            f"{text}, {_SCORED[part]}.",
            goal=Goal.MINIMIZE,
            series=_PARTS[part],
            chart=_CHARTS.get(f"{part}_{name}"),
            tile=_TILES.get(f"{part}_{name}"),
            test_score=_TEST_SCORES.get(f"{part}_{name}"),
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
            chart=_CHARTS.get(f"{part}_r2"),
            tile=_TILES.get(f"{part}_r2"),
            test_score=_TEST_SCORES.get(f"{part}_r2"),
        )
        for part in _PARTS
    },
    **{
        f"{part}_{name}_error": MetricInfo(
            f"{part} {label} standard error",
            f"Standard error of the {label}, from the spread of the errors {_SCORED[part]}.",
            series=series,
            chart=_STANDARD_ERRORS if part == "val" else None,
            digested=False,
        )
        for series, (name, (label, _)) in enumerate(_ERRORS.items(), 1)
        for part in ("val", "test")
    },
}
