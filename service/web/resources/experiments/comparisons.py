"""Comparisons of two groups of jobs."""

from __future__ import annotations

from typing import Final

from flask import Blueprint

from service.application.experiments.comparisons import compare
from service.web.core.core import core, owner
from service.web.http.endpoint import endpoint
from service.web.schemas.experiments.comparisons import ComparisonAnswer, ComparisonQuery

blueprint: Final = Blueprint("comparisons", __name__)

TAG: Final = "Experiments"


@blueprint.get("/comparisons")
@endpoint(
    TAG, ComparisonAnswer, query=ComparisonQuery, problems=("job_not_found", "sweep_not_found", "trial_not_found")
)
def show(query: ComparisonQuery) -> ComparisonAnswer:
    """Compare two groups of jobs.

    Each group is one setting, trained with several seeds. Values with the same seed are paired; where fewer than two
    seeds are common, Welch's test is used. `interval` is the 95% confidence interval of the difference of the means.
    With one seed there is none, and `why_no_interval` says so. Jobs that were scored on different data (another
    dataset, version or split) get no verdict, nor do those that are the same: `comparable` is false.
    """
    with core().database.read() as session:
        comparison = compare(session, query.a, query.b, metric=query.metric, which=query.of, owner=owner())
    return ComparisonAnswer.of(comparison)
