"""The pages of sweeps."""

from __future__ import annotations

import json
from typing import Final

from flask import Blueprint, Response

from service.sweeps import queries
from service.web.answers import as_page, next_page
from service.web.endpoints import endpoint
from service.web.openapi import examples
from service.web.resources.experiments.sweeps import list_sweeps, read_sweep
from service.web.schemas.experiments.sweeps import SweepListQuery, TrialList, trial_item
from service.web.services import owner, services

blueprint: Final = Blueprint("sweep_pages", __name__)

TAG: Final = "Pages"
_FIRST_TRIALS: Final = 100


@blueprint.get("/ui/sweeps")
@endpoint(TAG, "text/html", query=SweepListQuery, problems=("invalid_cursor",))
def show_list(query: SweepListQuery) -> Response:
    """Show the sweeps, and the form for a new one."""
    page = list_sweeps(query)
    # As text: a page's JSON has sorted keys, and a person reads the name first.
    shown = [(name, json.dumps(body, indent=2)) for name, body in examples.BODIES["SweepSpec"].items()]
    following = next_page(page.next_cursor) if page.next_cursor is not None else None
    return as_page("sweeps.html", sweeps=page, next_address=following, examples=shown)


@blueprint.get("/ui/sweeps/<sweep_id>")
@endpoint(TAG, "text/html", problems=("sweep_not_found",))
def show(sweep_id: str) -> Response:
    """Show the page of a sweep, updated live."""
    sweep = read_sweep(sweep_id)
    with services().database.read() as session:
        row = queries.get(session, sweep_id, owner=owner())
        found = queries.trials_of(session, row, sort="best", limit=_FIRST_TRIALS)
        total = sum(queries.counts(session, [sweep_id])[sweep_id].values())
    trials = TrialList(data=[trial_item(view) for view in found], total=total, has_more=total > len(found))
    return as_page("sweep.html", sweep=sweep, trials=trials)
