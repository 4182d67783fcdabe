"""The pages of sweeps."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response

from service.features.sweeps.operations import detail_of, read_trials
from service.features.sweeps.operations import show_list as list_sweeps
from service.features.sweeps.schemas import SweepListQuery
from service.spec.presets.definitions import PRESETS, current_name
from service.states import SweepStatus
from service.sweeps import queries
from service.web.core.core import core, owner
from service.web.core.rooms import Pages
from service.web.http.endpoint import endpoint
from service.web.http.responses import as_page, next_address

blueprint: Final = Blueprint("sweep_pages", __name__)

TAG: Final = "Pages"
_FIRST_TRIALS: Final = 20
"""Number of trials in the HTML, more than a screen shows; the script fetches the rest to draw them."""


@blueprint.get("/ui/sweeps")
@endpoint(TAG, "text/html", query=SweepListQuery, problems=("invalid_cursor", "owner_not_found"))
def show_list(query: SweepListQuery) -> Response:
    """Show the sweeps."""
    page = list_sweeps.read(query)
    views = [("All", "", not query.status)]
    views += [(status.value.capitalize(), status.value, query.status == [status]) for status in SweepStatus]
    return as_page("sweeps/index.html", sweeps=page, views=views, next_address=next_address(page.next_cursor))


@blueprint.get("/ui/sweeps/<sweep_id>")
@endpoint(TAG, "text/html", problems=("sweep_not_found",), is_shown_by_links=True)
def show(sweep_id: str) -> Response:
    """Show the page of a sweep, updated live."""
    with core().database.read() as session:
        row = queries.get(session, sweep_id, owner=owner())
        sweep = detail_of(session, row)
        trials = read_trials(session, row, sort="best", limit=_FIRST_TRIALS)
    base = sweep.resolved["base"]
    dataset = {**PRESETS[sweep.kind][current_name(base["preset"])]["dataset"], **base.get("dataset", {})}
    return as_page("sweeps/sweep.html", sweep=sweep, trials=trials, dataset=dataset["name"])


PAGES: Final = Pages(blueprint=blueprint)
