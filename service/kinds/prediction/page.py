"""The page of a prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from service.jobs.queries import lookup
from service.kinds.pages import PageOfKind
from service.storage.tables import Job
from service.web.core.core import core, owner
from service.web.gate.access_checks import is_shared
from service.web.jobs.overview import REASONS
from service.web.jobs.schemas import JobDetail


def _values(job: JobDetail) -> Mapping[str, Any]:
    """``trainer`` is the job of its model, if it exists."""
    trainers: Sequence[Job] = ()
    if not is_shared():
        with core().database.read() as session:
            trainers = lookup.several(session, [job.resolved["model"]["job"]], owner=owner())
    return {"trainer": next(iter(trainers), None), "reasons": REASONS | {"done": "all examples are predicted"}}


PAGE: Final = PageOfKind(template="prediction/job.html", values=_values)
