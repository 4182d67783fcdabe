"""The jobs of a cross-validation, together."""

from __future__ import annotations

from typing import Final

from flask import Blueprint

from service.jobs.queries import folds
from service.web.endpoints import endpoint
from service.web.schemas.folds import FoldSet
from service.web.services import owner, services

blueprint: Final = Blueprint("folds", __name__)

TAG: Final = "Jobs"


@blueprint.get("/folds/<group>")
@endpoint(TAG, FoldSet, problems=("folds_not_found",))
def show(group: str) -> FoldSet:
    """Show a cross-validation: the job of each fold, and the mean of their metrics with its 95% interval.

    The interval is Student's t over the folds that have succeeded. Their training parts overlap, so it is an
    approximation.
    """
    with services().database.read() as session:
        return FoldSet.of(group[:40], folds.jobs(session, group[:40], owner=owner()))
