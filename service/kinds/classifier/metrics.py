"""The metrics that only classifiers report."""

from __future__ import annotations

from typing import Final

from service.schema.metrics import Chart, Goal, MetricInfo, Place

_ACCURACY: Final = Chart("accuracy", Place.MAIN)
_OTHERS: Final = Chart("balanced accuracy, F1, ROC AUC")
METRICS: Final = {
    "train_accuracy": MetricInfo(
        "train accuracy",
        "Fraction of training examples classified correctly.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=1,
        chart=_ACCURACY,
        tile=5,
    ),
    "val_accuracy": MetricInfo(
        "val accuracy",
        "Fraction of validation examples classified correctly.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=2,
        chart=_ACCURACY,
        tile=1,
    ),
    "val_balanced_accuracy": MetricInfo(
        "val balanced accuracy",
        "Mean recall of the classes: each class counts the same, however rare it is.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=3,
        chart=_OTHERS,
        digested=False,
    ),
    "val_macro_f1": MetricInfo(
        "val macro F1",
        "Mean F1 of the classes: each class counts the same, however rare it is.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=4,
        chart=_OTHERS,
        digested=False,
    ),
    "val_log_loss": MetricInfo(
        "val log loss",
        "Mean negative logarithm of the probability of the true class, without label smoothing or class weights.",
        goal=Goal.MINIMIZE,
        series=3,
        chart=Chart("log loss"),
        digested=False,
    ),
    "val_roc_auc": MetricInfo(
        "val ROC AUC",
        "Probability that an example of the second class has a higher score than one of the first; 50%: chance.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=5,
        chart=_OTHERS,
        tile=7,
        digested=False,
    ),
    "test_accuracy": MetricInfo(
        "test accuracy",
        "Fraction of the test part classified correctly, scored once after the training.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=3,
        test_score=1,
    ),
}
