"""Decisions of a sweep, each made once: in the transaction in which a worker commits the result that it depends
on, or in a transaction of the scheduler.

The process that holds the lock of the sweep's row decides. It also locks the jobs on which a decision depends, because
a user may cancel them at the same time. A worker that cannot get a lock at once leaves the decision to the scheduler,
which checks every second: the worker already holds the lock of its job, and waiting could deadlock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import structlog
from sqlalchemy import Row, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service import hooks
from service.errors import SpecError
from service.hooks import Happening, HappeningKind
from service.jobs import actions
from service.runtime.failpoints import failpoint
from service.schema.metrics import Goal
from service.spec.presets.definitions import first_name
from service.spec.strict_json import canonical
from service.states import TERMINAL, Request, SweepStatus, TrialStatus
from service.storage.database import Database, locking, now_ms
from service.storage.sweep_tables import Sweep, SweepEvent, SweepTrial
from service.storage.tables import Job
from service.sweeps import events, trials
from service.sweeps.events import DECISIONS, SweepEventType
from service.sweeps.schema import Mode
from service.sweeps.search import proposals
from service.sweeps.search.proposals import Suggestions
from service.sweeps.search.space import EPOCHS
from service.sweeps.trial_scheduler import Outcome, Proposed, State, SweepPlan, TrialScheduler
from service.wording import counted

log = structlog.get_logger()

PROPOSALS_PER_TRANSACTION = 100
"""New trials per transaction. Without this limit, one transaction could exhaust a space with few valid
settings and block other writers, because invalid trials occupy none of the `parallel` slots. The next
transaction proposes others.
"""


def plan_of(resolved: Mapping[str, Any], count: int) -> SweepPlan:
    """The plan of a resolved sweep with ``count`` trials."""
    halving = resolved["halving"]
    return SweepPlan(
        trials=count,
        seeds=len(resolved["seeds"]),
        rungs=resolved["rungs"],
        factor=halving["factor"] if halving else 1,
        asynchronous=bool(halving) and halving["mode"] == Mode.ASYNCHRONOUS,
        parallel=resolved["parallel"],
        maximize=resolved["objective"]["goal"] == Goal.MAXIMIZE,
        max_failed=resolved["max_failed"],
        budget=(resolved["budget"] or {}).get("epochs"),
        own_epochs=EPOCHS in resolved["space"],
    )


def after_result(session: Session, job: Job | Row[Any]) -> None:
    """Make the decisions that the pause or end of a job permits, in the job's transaction. If that fails, the
    scheduler makes them."""
    if job.sweep_id is None:
        return
    session.flush()
    try:
        with session.begin_nested():
            query = select(Sweep).where(Sweep.id == job.sweep_id, Sweep.status == SweepStatus.RUNNING)
            sweep = session.scalar(locking(query, skip_locked=True))
            if sweep is not None:
                advance(session, sweep, wait=False)
                failpoint("deciding", sweep.last_seq)
    except trials.JobsLockedError:
        return
    except DBAPIError:
        raise  # the whole transaction is affected
    except Exception as error:  # noqa: BLE001 - an epoch must not be lost for the sake of its sweep
        log.warning("the sweep is left to the scheduler", sweep=job.sweep_id, error=str(error))


def advance_all(database: Database) -> list[str]:
    """Make all decisions that are due, except for proposals that depend on results; returns the ids of the queued
    jobs. For the scheduler."""
    queued: list[str] = []
    with database.read() as session:
        running = session.scalars(select(Sweep.id).where(Sweep.status == SweepStatus.RUNNING).order_by(Sweep.id)).all()
    for sweep_id in running:
        with failing_on_error(database, sweep_id):
            with database.read() as session:
                sweep = session.get(Sweep, sweep_id)
                is_due = sweep is not None and _is_due(session, sweep)
            if is_due:
                queued += advance_one(database, sweep_id)
    return queued


@contextmanager
def failing_on_error(database: Database, sweep_id: str) -> Iterator[None]:
    """Fail the sweep on an error, unless it is the database's."""
    try:
        yield
    except DBAPIError:
        raise
    except Exception as error:
        log.exception("a sweep failed", sweep=sweep_id)
        fail(database, sweep_id, {"code": "internal", "message": f"{type(error).__name__}: {error}"})


def advance_one(
    database: Database, sweep_id: str, suggestions: Suggestions | None = None, seq: int | None = None
) -> list[str]:
    """Advance a sweep in a transaction of its own; ``suggestions`` are used if its last event is still ``seq``."""
    with database.write() as session:
        query = select(Sweep).where(Sweep.id == sweep_id, Sweep.status == SweepStatus.RUNNING)
        locked = session.scalar(locking(query))
        if locked is None:
            return []
        queued = advance(session, locked, suggestions if locked.last_seq == seq else None)
        failpoint("deciding", locked.last_seq)
    failpoint("decided", sweep_id)
    return queued


def _is_due(session: Session, sweep: Sweep) -> bool:
    """Whether a decision can be made: the next result is available, or a trial whose settings are known can start."""
    state = state_of(sweep)
    if waits_for_suggestion(sweep, state):
        if not state.running:
            return False
    elif not state.running or _has_room(sweep, state):
        return True
    row = session.get(SweepTrial, (sweep.id, min(state.running)[1]))
    return row is not None and all(trials.is_inactive(job) for job in trials.jobs_of(session, row).values())


def waits_for_suggestion(sweep: Sweep, state: State) -> bool:
    """Whether a trial can start once its settings are suggested."""
    is_open = _has_room(sweep, state) and state.ended_by is None
    return is_open and proposals.depends_on_results(sweep, state.proposed)


def _has_room(sweep: Sweep, state: State) -> bool:
    return len(state.running) < sweep.resolved["parallel"] and state.proposed < sweep.trials


def state_of(sweep: Sweep) -> State:
    """The state of a sweep's trial scheduler."""
    return State.of(sweep.state, plan_of(sweep.resolved, sweep.trials))


def advance(session: Session, sweep: Sweep, suggestions: Suggestions | None = None, *, wait: bool = True) -> list[str]:
    """Make every decision that can be made now; returns the ids of the queued jobs. The sweep's row must be locked.

    Raises:
        JobsLockedError: another transaction holds the lock of a job, and ``wait`` is false.
    """
    plan = plan_of(sweep.resolved, sweep.trials)
    state = State.of(sweep.state, plan)
    seconds = (sweep.resolved["budget"] or {}).get("seconds")
    used = select(func.sum(Job.cpu_seconds)).where(Job.sweep_id == sweep.id)
    if seconds is not None and (session.scalar(used) or 0.0) >= seconds:
        plan = replace(plan, budget=state.spent)
    backend = _DatabaseBackend(session, sweep, plan, suggestions or {}, wait=wait)
    TrialScheduler(plan, state, backend).advance()
    sweep.state = state.document()
    sweep.epochs_started = state.spent
    sweep.failed_trials = state.failed
    session.flush()
    return backend.queued


def fail(database: Database, sweep_id: str, error: Mapping[str, Any]) -> None:
    """Fail a sweep that cannot continue."""
    with database.write() as session:
        sweep = session.scalar(locking(select(Sweep).where(Sweep.id == sweep_id)))
        if sweep is not None and sweep.status == SweepStatus.RUNNING:
            sweep.error = dict(error)
            finish(session, sweep, SweepStatus.FAILED, reason=str(error["code"]))


def finish(session: Session, sweep: Sweep, status: SweepStatus, *, reason: str) -> None:
    """End a sweep and all of its jobs."""
    sweep.status = status
    sweep.finished_ms = session.scalar(select(now_ms()))
    query = select(Job).where(Job.sweep_id == sweep.id, Job.status.not_in(TERMINAL)).order_by(Job.id)
    for job in session.scalars(locking(query)):
        actions.halt(session, job, Request.CANCEL, reason=f"the sweep has ended: {reason}")
    unfinished = (TrialStatus.RUNNING, TrialStatus.WAITING)
    rows = select(SweepTrial).where(SweepTrial.sweep_id == sweep.id, SweepTrial.status.in_(unfinished))
    for row in session.scalars(rows):
        row.rung -= row.status == TrialStatus.RUNNING and row.rung > 0  # the one that it has reached
        row.status = TrialStatus.STOPPED
        sweep.finished_trials += 1
    events.record_status(session, sweep, reason=reason)
    data = {
        "status": sweep.status,
        "error": sweep.error,
        "best_trial": sweep.best_trial,
        "best_value": sweep.best_value,
    }
    events.append(session, sweep, SweepEventType.END, data | {"sweep_digest": sweep.sweep_digest})
    message: dict[str, Any] = {"id": sweep.id, "url": f"/sweeps/{sweep.id}", "name": sweep.name}
    message |= {"status": sweep.status, "reason": reason, "kind": sweep.kind, "seq": sweep.last_seq}
    hooks.happened(session, Happening(kind=HappeningKind.SWEEP_ENDED, owner=sweep.owner, data=message))


class _DatabaseBackend:
    """The ``SweepBackend`` of a trial scheduler, on rows of the database."""

    def __init__(
        self, session: Session, sweep: Sweep, plan: SweepPlan, suggestions: Suggestions, *, wait: bool
    ) -> None:
        self._session, self._sweep, self._plan, self._suggestions = session, sweep, plan, suggestions
        self._wait = wait
        # The sweep's row is locked, and so are these jobs: nobody else changes them.
        self._rows: dict[int, SweepTrial] = {}
        self._locked_jobs: dict[int, dict[str, Job | None]] = {}
        self._results: dict[tuple[int, int], trials.Result] = {}
        """Those whose turn it is, by trial and rung."""
        self.queued: list[str] = []
        self._proposals_left = PROPOSALS_PER_TRANSACTION

    def propose(self, trial: int, max_epochs: int | None) -> Proposed | None:
        if self._proposals_left == 0:
            return None
        self._proposals_left -= 1
        settings = proposals.settings(self._sweep, trial)
        if settings is None:
            settings = self._suggestions.get(trial)
        if settings is None:
            return None
        row = SweepTrial(
            sweep_id=self._sweep.id, trial=trial, settings=settings, rung=0, epoch=0, values={}, jobs={},
            status=TrialStatus.RUNNING,
        )  # fmt: skip
        epochs: int | None = None
        data: dict[str, Any] = {"trial": trial, "settings": settings}
        try:
            with self._session.no_autoflush:  # nothing that it reads is pending
                row.jobs, epochs = trials.submit(
                    self._session, self._sweep, trial, settings, rungs=self._plan.rungs, max_epochs=max_epochs
                )
            if not row.jobs:
                return Proposed(epochs, is_started=False)
            self.queued += row.jobs.values()
        except SpecError as error:
            row.status = TrialStatus.FAILED
            row.error = {"code": "invalid_spec", "message": str(error)[:1000]}
            data["error"] = row.error
            self._sweep.finished_trials += 1
        self._session.add(row)
        self._rows[trial] = row
        self._append(SweepEventType.PROPOSE, data)
        return Proposed(epochs)

    def promote(self, trial: int, rung: int) -> None:
        row = self._row(trial)
        row.status, row.rung = TrialStatus.RUNNING, rung
        hold_epoch = self._plan.rungs[rung] if rung < len(self._plan.rungs) - 1 else None
        for job in self._jobs(row):
            if actions.release_hold(self._session, job, hold_epoch=hold_epoch, reason="promoted"):
                self.queued.append(job.id)

    def outcome(self, trial: int, rung: int) -> Outcome | None:
        objective = self._sweep.resolved["objective"]
        is_last = rung == len(self._plan.rungs) - 1
        with self._session.no_autoflush:  # nothing that it reads is pending: jobs and epochs are written at once
            result = trials.result(
                self._session,
                self._lock_jobs(self._row(trial)),
                metric=objective["metric"],
                over_seeds=objective["over_seeds"],
                epoch=None if is_last else self._plan.rungs[rung],
            )
        if result is None:
            return None
        self._results[trial, rung] = result
        return result.outcome

    def record(self, trial: int, rung: int, outcome: Outcome, best: Sequence[Any] | None) -> None:
        row, sweep = self._row(trial), self._sweep
        result = self._results.pop((trial, rung))
        row.values, row.error = dict(result.values), result.error
        row.value, row.rung = outcome.value, rung
        jobs = self._jobs(row)
        is_last = rung == len(self._plan.rungs) - 1
        row.epoch = max((job.epoch for job in jobs), default=0)
        if not is_last:  # a job that took over more epochs is further, but its value is that of the rung
            row.epoch = min(row.epoch, self._plan.rungs[rung])
        row.status = TrialStatus.FAILED if outcome.failed else TrialStatus.SUCCEEDED if is_last else TrialStatus.WAITING
        sweep.finished_trials += is_last or outcome.failed
        sweep.best_trial, sweep.best_value = best or (None, None)
        data: dict[str, Any] = {"trial": trial, "rung": rung, "value": outcome.value, "values": row.values}
        if is_last:
            jobs_by_seed = self._lock_jobs(row)
            data["digests"] = {seed: job.result_digest for seed, job in jobs_by_seed.items() if job is not None}
        if outcome.failed:
            data["error"] = (row.error or {}).get("code")
        self._append(SweepEventType.RESULT, data)

    def decide(self, rung: int, promoted: Sequence[Sequence[Any]], stopped: Sequence[Sequence[Any]]) -> None:
        rung_data = {"rung": rung, "epoch": self._plan.rungs[rung]}
        if promoted:
            self._append(SweepEventType.PROMOTE, rung_data | {"trials": [list(item) for item in promoted]})
        if stopped:
            self._append(SweepEventType.STOP, rung_data | {"trials": [list(item) for item in stopped]})
        for trial, _ in stopped:
            row = self._row(trial)
            if row.status == TrialStatus.FAILED:
                continue
            row.status = TrialStatus.STOPPED
            self._sweep.finished_trials += 1
            for job in self._jobs(row):
                actions.halt(self._session, job, Request.CANCEL, reason=f"not promoted at epoch {rung_data['epoch']}")

    def exhausted(self, reason: str) -> None:
        self._append(SweepEventType.EXHAUSTED, {"by": reason})

    def conclude(self, winner: Sequence[Any] | None, rung: int, ended_by: str | None) -> None:
        sweep = self._sweep
        if winner is not None:
            row = self._row(winner[0])
            data = {"trial": winner[0], "value": winner[1], "rung": rung, "settings": row.settings}
            self._append(SweepEventType.WINNER, data)
        self._session.flush()
        sweep.sweep_digest = digest(self._session, sweep)
        if ended_by == "failures":
            message = f"more than {counted(self._plan.max_failed or 0, 'trial')} failed"
            sweep.error = {"code": "too_many_failed", "message": message}
        elif winner is None:
            sweep.error = {
                "code": "no_result",
                "message": "no trial without a failure has a finite value of the objective",
            }
        status = SweepStatus.FAILED if sweep.error is not None else SweepStatus.SUCCEEDED
        finish(self._session, sweep, status, reason=sweep.error["code"] if sweep.error else ended_by or "done")

    def _row(self, trial: int) -> SweepTrial:
        if trial not in self._rows:
            self._rows[trial] = self._session.get_one(SweepTrial, (self._sweep.id, trial))
        return self._rows[trial]

    def _lock_jobs(self, row: SweepTrial) -> dict[str, Job | None]:
        if row.trial not in self._locked_jobs:
            self._locked_jobs[row.trial] = trials.lock_jobs(self._session, row, wait=self._wait)
        return self._locked_jobs[row.trial]

    def _jobs(self, row: SweepTrial) -> list[Job]:
        return [job for job in self._lock_jobs(row).values() if job is not None]

    def _append(self, kind: SweepEventType, data: Mapping[str, Any]) -> None:
        events.append(self._session, self._sweep, kind, data)


def digest(session: Session, sweep: Sweep) -> str:
    """SHA-256 over the sweep's spec and all of its decisions, in order: equal for the same sweep, no matter
    how often its workers were killed."""
    spec = {name: value for name, value in sweep.resolved.items() if name not in ("name", "reuse")}
    if "preset" in spec["base"]:
        spec["base"] = spec["base"] | {"preset": first_name(spec["base"]["preset"])}
    query = select(SweepEvent.type, SweepEvent.data).where(
        SweepEvent.sweep_id == sweep.id, SweepEvent.type.in_(DECISIONS)
    )
    decisions = [[kind, data] for kind, data in session.execute(query.order_by(SweepEvent.seq))]
    text = canonical({"sweep": spec, "data": sweep.data["sha256"], "decisions": decisions})
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
