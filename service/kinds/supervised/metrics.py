"""The metrics of classifiers and regressors."""

from __future__ import annotations

from typing import Final

from service.schema.metrics import DEAD_UNITS, GRADIENT_NORMS, Chart, Goal, MetricInfo, Place

_LOSS: Final = Chart("loss", Place.MAIN)
METRICS: Final = {
    "train_loss": MetricInfo(
        "train loss",
        "Mean loss over the training batches as it is minimized, with label smoothing, class weights, augmentation and "
        "dropout; weight decay is not a part of it.",
        goal=Goal.MINIMIZE,
        series=1,
        chart=_LOSS,
        tile=6,
    ),
    "val_loss": MetricInfo(
        "val loss",
        "Mean loss on the validation data, without label smoothing and class weights: the log loss where the spec's "
        "loss is softmax_cross_entropy. A regressor's is of the target in standard deviations.",
        goal=Goal.MINIMIZE,
        series=2,
        chart=_LOSS,
        tile=4,
    ),
    "test_loss": MetricInfo(
        "test loss",
        "Mean loss on the test part, measured like the val loss, scored once after the training.",
        goal=Goal.MINIMIZE,
        series=3,
        test_score=4,
    ),
    "grad_norm": MetricInfo(
        "gradient norm", "Mean norm of the gradient of all weights.", series=1, chart=GRADIENT_NORMS
    ),
    "dead_units": MetricInfo(
        "dead units",
        "Fraction of hidden units that are zero for every probe example.",
        percent=True,
        goal=Goal.MINIMIZE,
        series=3,
        chart=DEAD_UNITS,
        line=1,
    ),
    "saturation": MetricInfo(
        "saturation",
        "Fraction of sigmoid and tanh outputs where the slope is nearly zero.",
        percent=True,
        series=5,
        chart=DEAD_UNITS,
    ),
}
