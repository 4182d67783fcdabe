"""Networks that predict a number from the other columns of a table."""

from __future__ import annotations

from typing import Final

from service.kinds.kind import Ability, KindOfJob
from service.kinds.regressor import metrics
from service.kinds.supervised import FINDINGS
from service.kinds.supervised import metrics as shared_metrics
from service.states import JobKind, Task

REGRESSOR: Final = KindOfJob(
    name=JobKind.REGRESSOR.value,
    abilities=frozenset({Ability.EXPORT, Ability.PREDICT, Ability.RESIDUALS}),
    remedies={Ability.CLASSIFY: "what it gets wrong: GET /jobs/{job.id}/residuals"},
    task=Task.REGRESSION,
    metrics=shared_metrics.METRICS | metrics.METRICS,
    key_metrics=("val_rmse", "val_r2", "val_loss"),
    live_metrics=("val_rmse", "val_r2", "val_loss"),
    fold_metrics=("val_rmse", "best:val_rmse", "val_r2", "val_loss", "test_rmse"),
    typical_error="val_rmse",
    findings=FINDINGS,
    plots=("curves", "residuals", "importance"),
    result_plots=("curves", "residuals"),
    next_commands=("residuals {}", "predict {} FILE"),
)
