"""Calibration of a classifier, and the importance of a table's columns."""

from __future__ import annotations

from typing import Final

from flask import Blueprint

from service.web.http.endpoint import endpoint
from service.web.inference import loading, validation_results
from service.web.schemas.inference import CalibrationAnswer, CalibrationBin, ColumnImportance, ImportanceAnswer
from service.web.schemas.queries import CheckpointQuery

blueprint: Final = Blueprint("evaluation", __name__)

TAG: Final = "Inference"


@blueprint.get("/jobs/<job_id>/calibration")
@endpoint(TAG, CalibrationAnswer, query=CheckpointQuery, problems=(*loading.PROBLEMS, "dataset_unavailable"))
def calibration(job_id: str, query: CheckpointQuery) -> CalibrationAnswer:
    """Compare the confidence of predictions with their accuracy on the validation data.

    The first request for a checkpoint evaluates the whole validation split. `GET /jobs/{job_id}/plots/calibration.png`
    draws it.
    """
    result, epoch, count = validation_results.calibration(job_id, query.checkpoint)
    bins = [CalibrationBin.represent(item) for item in result.bins]
    return CalibrationAnswer.represent(result, checkpoint=epoch, validation_count=count, bins=bins)


@blueprint.get("/jobs/<job_id>/importance")
@endpoint(
    TAG, ImportanceAnswer, query=CheckpointQuery, problems=(*loading.PROBLEMS, "dataset_unavailable", "not_found")
)
def importance(job_id: str, query: CheckpointQuery) -> ImportanceAnswer:
    """Show how important each column of a table is: the accuracy that is lost when its values are shuffled.

    Each column is shuffled five times. The shuffles depend only on the
    job's seed, so results are reproducible. Of columns with the same
    information, each seems less important than both are together. `GET /jobs/{job_id}/plots/importance.png` draws
    it.
    """
    result, epoch = validation_results.importances(job_id, query.checkpoint)
    columns = [ColumnImportance.represent(item) for item in result.columns]
    return ImportanceAnswer.represent(result, checkpoint=epoch, columns=columns)
