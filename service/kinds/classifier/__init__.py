"""Networks that tell classes apart."""

from __future__ import annotations

from typing import Final

from service.kinds.classifier import metrics
from service.kinds.kind import Ability, KindOfJob
from service.kinds.supervised import FINDINGS
from service.kinds.supervised import metrics as shared_metrics
from service.states import JobKind, Task

CLASSIFIER: Final = KindOfJob(
    name=JobKind.CLASSIFIER.value,
    abilities=frozenset({Ability.EXPORT, Ability.PREDICT, Ability.CLASSIFY}),
    remedies={Ability.RESIDUALS: "what it gets wrong: GET /jobs/{job.id}/mistakes"},
    task=Task.CLASSIFICATION,
    metrics=shared_metrics.METRICS | metrics.METRICS,
    key_metrics=("val_accuracy", "val_loss", "train_loss"),
    live_metrics=("val_accuracy", "train_loss", "val_loss"),
    fold_metrics=("val_accuracy", "best:val_accuracy", "val_loss", "test_accuracy"),
    findings=FINDINGS,
    plots=("curves", "confusion", "calibration", "importance"),
    result_plots=("curves", "confusion"),
    example={
        "name": "wider",
        "epochs": 5,
        "layers": [{"units": 256, "activation": "relu"}, {"units": 10, "activation": "softmax"}],
    },
    next_commands=("mistakes {}", "predict {} FILE"),
)
