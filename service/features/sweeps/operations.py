"""Sweeps: submit, show and control them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, cast

from flask import Blueprint, Response
from sqlalchemy.orm import Session

from service.application.specs import SpecChecks
from service.errors import SweepNotFound
from service.features.sweeps.schemas import (
    CurvePlotQuery,
    CurveQuery,
    ImportanceList,
    SweepDetail,
    SweepDryRun,
    SweepEventItem,
    SweepEventList,
    SweepEventQuery,
    SweepList,
    SweepListQuery,
    TrialCurves,
    TrialList,
    TrialQuery,
    curve_lines,
    new_sweep,
    sweep_detail,
    sweep_summary,
    trial_item,
    trial_lines,
)
from service.features.sweeps.stream import follow_sweep
from service.features.sweeps.use_cases import Sweeps
from service.spec.metric_info import describe
from service.states import SWEEP_ENDED
from service.storage.sweep_tables import Sweep
from service.sweeps import actions, events, queries
from service.sweeps.events import DECISIONS
from service.sweeps.results.best_trial import best_trial
from service.sweeps.results.curves import TrialCurve
from service.sweeps.results.curves import curves as curves_of
from service.sweeps.results.importance import importance as importance_of
from service.sweeps.schema import MAX_TRIALS, SweepSpec
from service.web.core.core import Core, core, owner, provided
from service.web.core.rooms import Operations
from service.web.gate.access_checks import actor
from service.web.http import downloads, requests, slots
from service.web.http.downloads import Picture, picture
from service.web.http.endpoint import Result, endpoint
from service.web.http.path_parameters import PathParameter
from service.web.http.problems import Problem, invalid_parameter
from service.web.http.queries import StreamQuery, SubmitQuery
from service.web.http.responses import as_json
from service.web.jobs.plots import MEDIA_TYPES, Format
from service.web.jobs.views import submitted_response
from service.web.streaming.poller import Poller
from service.web.streaming.response import refuse_if_full, stream_response
from tapeline.inputs.values import dotted

blueprint: Final = Blueprint("sweeps", __name__)

TAG: Final = "Experiments"
SWEEP_ID: Final = PathParameter(
    "sweep_id",
    "A sweep's id, such as `swp_01J00000000000000000000000`.",
    "swp_01J00000000000000000000000",
    not_found=lambda path: SweepNotFound(path["sweep_id"][:60]),
    owner=(Sweep.id, Sweep.owner),
)
_NOT_FOUND: Final = ("sweep_not_found",)


@blueprint.post("/sweeps")
@endpoint(
    TAG,
    SweepDetail,
    status=201,
    query=SubmitQuery,
    headers=("Idempotency-Key", "traceparent"),
    document=SweepSpec,
    other_responses={200: SweepDryRun},
    problems=("idempotency_conflict", "quota_exceeded"),
)
def submit(query: SubmitQuery, document: Any) -> Response:
    """Start a sweep: many jobs as one experiment.

    `space` has the settings to try, each with every one of `seeds`. Trials are ordinary jobs. The order in which they
    finish, the number of workers and their failures change no decision: the same sweep ends with the same winner and
    `sweep_digest`. With `dry_run=true` nothing is stored.
    """
    if query.dry_run:
        checked = provided(Sweeps).check(document, by=actor())
        jobs = checked.trials * len(checked.resolved["seeds"])
        return as_json(SweepDryRun.from_row(checked, jobs=jobs, first_settings=checked.first[:20]))
    idempotency = requests.idempotency_key(document)
    submitted = provided(Sweeps).submit(document, by=actor(), idempotency=idempotency)
    return submitted_response(submitted, "/sweeps")


@blueprint.get("/sweeps")
@endpoint(TAG, SweepList, query=SweepListQuery, problems=("invalid_cursor", "owner_not_found"), page="/ui/sweeps")
def show_list(query: SweepListQuery) -> SweepList:
    """List sweeps, newest first."""
    with core().database.read() as session:
        rows, next_cursor = queries.find(
            session, owner=owner(), status=query.status, limit=query.limit, cursor=query.cursor
        )
        ids = [row.id for row in rows]
        counts, epochs = queries.counts(session, ids), queries.epochs(session, ids)
    data = [sweep_summary(row, counts[row.id], epochs[row.id]) for row in rows]
    return SweepList(data=data, has_more=next_cursor is not None, next_cursor=next_cursor)


@blueprint.get("/sweeps/<sweep_id>")
@endpoint(TAG, SweepDetail, problems=_NOT_FOUND, page="/ui/sweeps/{sweep_id}", is_shown_by_links=True)
def show(sweep_id: str) -> SweepDetail:
    """Show a sweep."""
    with core().database.read() as session:
        return detail_of(session, queries.get(session, sweep_id, owner=owner()))


@blueprint.delete("/sweeps/<sweep_id>")
@endpoint(TAG, None, status=204, problems=(*_NOT_FOUND, "illegal_transition"))
def delete(sweep_id: str) -> None:
    """Delete an ended sweep with all its jobs and files."""
    provided(Sweeps).delete(sweep_id, by=actor())


@blueprint.post("/sweeps/<sweep_id>/pause")
@endpoint(TAG, SweepDetail, status=202, problems=(*_NOT_FOUND, "illegal_transition"))
def pause(sweep_id: str) -> Result:
    """Pause a sweep: its jobs pause after the current batch, and nothing is decided."""
    return _accepted_response(actions.pause(core().database, sweep_id, owner=owner(), by=actor()))


@blueprint.post("/sweeps/<sweep_id>/resume")
@endpoint(TAG, SweepDetail, status=202, problems=(*_NOT_FOUND, "illegal_transition"))
def resume(sweep_id: str) -> Result:
    """Resume a paused sweep: its jobs continue from their last checkpoints."""
    return _accepted_response(provided(Sweeps).resume(sweep_id, by=actor()))


@blueprint.post("/sweeps/<sweep_id>/cancel")
@endpoint(TAG, SweepDetail, status=202, problems=(*_NOT_FOUND, "illegal_transition"))
def cancel(sweep_id: str) -> Result:
    """Cancel a sweep with its unfinished jobs. Their results so far are kept."""
    return _accepted_response(actions.cancel(core().database, sweep_id, owner=owner(), by=actor()))


@blueprint.get("/sweeps/<sweep_id>/trials")
@endpoint(
    TAG,
    TrialList,
    query=TrialQuery,
    other_media=("text/csv",),
    other_responses={200: "With `format=csv`: a line for each trial, with its settings and its values by seed."},
    problems=_NOT_FOUND,
    is_shown_by_links=True,
)
def trials(sweep_id: str, query: TrialQuery) -> Result:
    """List the trials of a sweep.

    A trial is one setting. It has a job for each seed, and its `value` is that of the objective over all of them.
    """
    with core().database.read() as session:
        sweep = queries.get(session, sweep_id, owner=owner())
        sort = queries.sort_key(sweep, query.sort)
        if sort is None:
            allowed = ", ".join(["trial", "value", "epoch", "status", "best", *map(dotted, sweep.resolved["space"])])
            raise invalid_parameter("sort", f"must be one of {allowed}")
        if query.format == "csv":
            text = "".join(trial_lines(sweep, queries.trials_of(session, sweep, sort=sort, limit=MAX_TRIALS)))
            return downloads.send_text(text, name=f"{sweep_id}-trials.csv", media_type="text/csv")
        return read_trials(session, sweep, sort=sort, limit=query.limit, after=query.first)


@blueprint.get("/sweeps/<sweep_id>/decisions")
@endpoint(TAG, SweepEventList, query=SweepEventQuery, problems=_NOT_FOUND, is_shown_by_links=True)
def decisions(sweep_id: str, query: SweepEventQuery) -> SweepEventList:
    """List the decisions of a sweep, with the numbers they are based on.

    `propose`: a trial gets its settings. `result`: the sweep records a value. `promote` and `stop`: which trials
    continue at a rung, with all compared values. `exhausted`: why no more trials are started. `winner`: the best trial.
    """
    with core().database.read() as session:
        queries.get(session, sweep_id, owner=owner())
        rows = events.read(session, sweep_id, after=query.after, limit=query.limit + 1, types=DECISIONS)
    shown = rows[: query.limit]
    last = shown[-1].seq if shown else query.after
    data = [SweepEventItem.from_row(row) for row in shown]
    return SweepEventList(data=data, has_more=len(rows) > len(shown), next_after=last)


@blueprint.get("/sweeps/<sweep_id>/curves")
@endpoint(
    TAG,
    TrialCurves,
    query=CurveQuery,
    other_media=("text/csv",),
    other_responses={200: "With `format=csv`: a line for each trial and epoch, with the mean and its bands."},
    problems=_NOT_FOUND,
    is_shown_by_links=True,
)
def curves(sweep_id: str, query: CurveQuery) -> Result:
    """Show a metric of the best trials by epoch: the mean of their seeds, with two bands.

    `low` and `high` are the lowest and the highest seed, `interval_low` and `interval_high` the ends of Student's 95%
    interval of the mean.
    """
    with core().database.read() as session:
        sweep = queries.get(session, sweep_id, owner=owner())
        metric = query.metric or sweep.resolved["objective"]["metric"]
        trial_curves = curves_of(session, sweep, metric, limit=query.limit, among=query.trials or None)
    if query.format == "csv":
        text = "".join(curve_lines(metric, trial_curves))
        return downloads.send_text(text, name=f"{sweep_id}-curves.csv", media_type="text/csv")
    return TrialCurves(metric=metric, data=trial_curves)


_IMPORTANCE_NOTE: Final = (
    "Fraction of the objective's variance that lies between groups of similar values. Fractions overlap and need not "
    "add up to 100%. With few trials they are a rough guide."
)


@blueprint.get("/sweeps/<sweep_id>/importance")
@endpoint(TAG, ImportanceList, problems=_NOT_FOUND, is_shown_by_links=True)
def importance(sweep_id: str) -> ImportanceList:
    """Show how much each setting matters.

    `share` is the correlation ratio (eta squared): the fraction of the objective's variance that lies between groups of
    similar values, at most four. Settings interact, so the values of `share` need not add up to 1.
    """
    with core().database.read() as session:
        sweep = queries.get(session, sweep_id, owner=owner())
        importances = importance_of(session, sweep)
    rungs = sweep.resolved["rungs"]
    note = _IMPORTANCE_NOTE if sweep.finished_ms else f"Provisional: the sweep has not ended. {_IMPORTANCE_NOTE}"
    return ImportanceList(data=list(importances), epoch=rungs[0] if len(rungs) > 1 else None, note=note)


@blueprint.get("/sweeps/<sweep_id>/stream")
@endpoint(
    TAG,
    "text/event-stream",
    query=StreamQuery,
    headers=("Last-Event-ID",),
    other_responses={204: "The sweep has ended, and the client has all its events."},
    problems=(*_NOT_FOUND, "too_many_streams", "quota_exceeded"),
    is_shown_by_links=True,
)
def stream(sweep_id: str, query: StreamQuery) -> Response:
    """Follow a sweep by server-sent events.

    The first event is `snapshot` (the sweep). Then every event of its log is sent with its `seq` as `id`, from the
    first or after `Last-Event-ID`: `status` and the decisions. `end` is the last event.
    """
    after = requests.last_event_id(query)
    refuse_if_full()
    sweep = show.read(sweep_id)
    if sweep.status in SWEEP_ENDED and after is not None and after >= sweep.last_seq:
        return Response(status=204)
    return stream_response(partial(follow_sweep, provided(Poller), sweep, after=after or 0))


_BANDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "range": ("low", "high", "; band: lowest to highest seed"),
    "interval": ("interval_low", "interval_high", "; band: 95% interval of the mean"),
}


@blueprint.get("/sweeps/<sweep_id>/plots/<which>.<form>")
@endpoint(
    TAG,
    "image/png",
    name="sweep_plots.plot",
    **downloads.DRAWN,
    query=CurvePlotQuery,
    path_examples={"which": "curves"},
    problems=("sweep_not_found", "not_found", "not_yet", "busy"),
    is_shown_by_links=True,
)
def plot(sweep_id: str, which: str, form: str, query: CurvePlotQuery) -> Response:
    """Draw the curves of a sweep's best trials, `curves` as `.png` or `.svg`: means over the seeds, with a band."""
    with core().database.read() as session:
        sweep = queries.get(session, sweep_id, owner=owner())
        if which != "curves" or form not in MEDIA_TYPES:
            raise Problem("not_found", "there is no such plot; available: curves, as .png or .svg")
        metric = query.metric or sweep.resolved["objective"]["metric"]
        trial_curves = curves_of(session, sweep, metric, limit=query.limit, among=query.trials or None)
    if not trial_curves:
        raise Problem("not_yet", f"no trial has a value of {metric} yet")
    drawn = _draw_curves(sweep, metric, trial_curves, band=query.band, fmt=cast(Format, form))
    return downloads.send_picture(drawn, MEDIA_TYPES[form])


def _draw_curves(sweep: Sweep, metric: str, curves: Sequence[TrialCurve], *, band: str, fmt: Format) -> Picture:
    """A plot of the best trials. It is not cached: a sweep has no folder."""
    from service.pictures import plots  # loads Matplotlib, which takes most of a second

    seeds = len(sweep.resolved["seeds"])
    low, high, band_note = _BANDS.get(band, ("mean", "mean", "")) if seeds > 1 else ("mean", "mean", "")
    lines = [
        plots.BandedLine(curve.label, curve.epochs, curve.mean, getattr(curve, low), getattr(curve, high))
        for curve in curves
    ]
    title = f"{sweep.name or f'sweep {sweep.id[-6:].lower()}'}: {describe(metric).label}"
    caption = f"mean of {seeds} seeds{band_note}" if seeds > 1 else "one seed"
    rungs = sweep.resolved["rungs"][:-1]
    with slots.hold(slots.DRAWING):
        return picture(plots.banded(lines, metric=metric, title=title, caption=caption, rungs=rungs, fmt=fmt))


def detail_of(session: Session, sweep: Sweep) -> SweepDetail:
    """A sweep with the totals of its trials and jobs."""
    counts, epochs = queries.counts(session, [sweep.id]), queries.epochs(session, [sweep.id])
    return sweep_detail(sweep, counts[sweep.id], epochs[sweep.id], best_trial(session, sweep))


def read_trials(session: Session, sweep: Sweep, *, sort: str, limit: int, after: int = 0) -> TrialList:
    """A page of a sweep's trials."""
    trial_views = queries.trials_of(session, sweep, sort=sort, limit=limit, after=after)
    total = sum(queries.counts(session, [sweep.id])[sweep.id].values())
    end = after + len(trial_views)
    return TrialList(
        data=[trial_item(view, sweep) for view in trial_views],
        total=total,
        has_more=end < total,
        next_cursor=str(end) if end < total else None,
    )


def _accepted_response(sweep: Sweep) -> Result:
    with core().database.read() as session:
        return detail_of(session, sweep), {"Location": f"/sweeps/{sweep.id}"}


def _provide(core: Core) -> Sequence[object]:
    """The use cases of sweeps, which belong to one service."""
    sweeps = Sweeps(
        database=core.database,
        artifacts=core.artifacts,
        specs=SpecChecks(database=core.database, datasets=core.repository, max_priority=core.quotas.max_priority),
        slots=slots.SWEEP_CHECKS,
        admit=lambda owner, count, expected_bytes: core.quotas.new_jobs(owner, count, expected_bytes),
        wake_up=core.publisher.wake,
        represent=lambda sweep: new_sweep(sweep).model_dump(mode="json"),
    )
    return [sweeps]


OPERATIONS: Final = Operations(blueprint=blueprint, provide=_provide)
