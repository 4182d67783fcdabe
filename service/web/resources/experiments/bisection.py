"""The epoch from which a metric of a job is bad."""

from __future__ import annotations

from typing import Final

from flask import Blueprint

from service.application.experiments.bisection import Limit, bisect
from service.web.core.core import core, owner
from service.web.http.endpoint import endpoint
from service.web.schemas.experiments.bisection import BisectionAnswer, BisectionQuery

blueprint: Final = Blueprint("bisection", __name__)

TAG: Final = "Experiments"


@blueprint.get("/jobs/<job_id>/bisection")
@endpoint(TAG, BisectionAnswer, query=BisectionQuery, problems=("job_not_found",))
def show(job_id: str, query: BisectionQuery) -> BisectionAnswer:
    """Find the epoch from which a metric is too low or too high.

    Its last value must be bad. The epochs are halved, so 64 epochs take at most 6 probes. Values that are not finite
    are bad. A metric may turn bad more than once: `times` counts.
    """
    limit = Limit(below=query.below, above=query.above)
    with core().database.read() as session:
        return BisectionAnswer.of(bisect(session, job_id, query.metric, limit, owner=owner()))
