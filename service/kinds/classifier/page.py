"""The parts of pages that classifiers bring with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.orm import Session

from service.jobs.queries import lookup
from service.kinds.pages import PageOfKind
from service.storage.tables import Epoch, Job
from service.web.jobs.overview import confusion_table
from service.web.jobs.schemas import metric_intervals

_HISTORY: Final = ("train_loss", "val_loss", "val_accuracy")


def _lesson(session: Session, job: Job) -> Mapping[str, Any]:
    rows = lookup.epochs(session, job.id)
    shown = session.get(Epoch, (job.id, job.best_epoch or job.epoch))
    confusion = confusion_table(job, shown)
    counts = confusion["total"] if confusion else None
    return {
        "history": {"epochs": [row.epoch for row in rows]}
        | {name: [row.metrics.get(name) for row in rows] for name in _HISTORY},
        "confusion": confusion,
        "interval": metric_intervals(shown.metrics if shown else {}, counts).get("val_accuracy"),
    }


PAGE: Final = PageOfKind(
    evaluation=("classifier/calibration.html",),
    examples=("classifier/mistakes.html",),
    importance="Accuracy on validation rows that is lost when the values of a column are shuffled, in percentage "
    "points.",
    lesson=_lesson,
)
