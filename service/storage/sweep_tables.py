"""The tables of sweeps. A trial's jobs are rows of ``jobs``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, ColumnElement, Float, ForeignKey, Index, Integer, String, exists, text
from sqlalchemy.orm import InstrumentedAttribute, Mapped, aliased, mapped_column

from service.states import CANCELLED, Status, TrialStatus
from service.storage.tables import Base, Job


class Sweep(Base):
    """Many jobs as one experiment."""

    __tablename__ = "sweeps"
    __table_args__ = (
        Index("ix_sweeps_created", "created_ms", "id"),
        Index("ix_sweeps_status", "status", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str | None] = mapped_column(String(64))
    name: Mapped[str | None] = mapped_column(String(200))
    kind: Mapped[str] = mapped_column(String(20))
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    """As sent."""
    resolved: Mapped[dict[str, Any]] = mapped_column(JSON)
    """With every default filled in, except those of ``base``."""
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    """The dataset that all trials train on: its shape and its version."""
    status: Mapped[str] = mapped_column(String(20))
    state: Mapped[dict[str, Any]] = mapped_column(JSON)
    """The state of the decisions."""
    traceparent: Mapped[str | None] = mapped_column(String(55))
    """Of the request that created the sweep; its jobs have the same."""
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    trials: Mapped[int] = mapped_column(Integer)
    """The planned number of trials, which is reached unless the budget is exhausted first."""
    finished_trials: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    failed_trials: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    epochs_started: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    """Epochs of all jobs that were started."""
    best_trial: Mapped[int | None] = mapped_column(Integer)
    """The best trial so far; for a succeeded sweep, the winner."""
    best_value: Mapped[float | None] = mapped_column(Float)
    sweep_digest: Mapped[str | None] = mapped_column(String(80))
    last_seq: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    created_ms: Mapped[int] = mapped_column(BigInteger)
    finished_ms: Mapped[int | None] = mapped_column(BigInteger)


class SweepTrial(Base):
    """One setting of a sweep, with its result as of the latest decision."""

    __tablename__ = "sweep_trials"

    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True)
    trial: Mapped[int] = mapped_column(Integer, primary_key=True)
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    """By JSON pointer."""
    status: Mapped[str] = mapped_column(String(20))
    rung: Mapped[int] = mapped_column(Integer)
    """The rung that it trains for, or has reached."""
    epoch: Mapped[int] = mapped_column(Integer)
    """The epoch of ``value``."""
    value: Mapped[float | None] = mapped_column(Float)
    """Of the objective, over all seeds."""
    values: Mapped[dict[str, Any]] = mapped_column(JSON)
    """The values by seed."""
    jobs: Mapped[dict[str, Any]] = mapped_column(JSON)
    """Ids by seed."""
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class SweepEvent(Base):
    """A sweep's log, numbered without gaps: its decisions, and the values on which they are based."""

    __tablename__ = "sweep_events"

    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    type: Mapped[str] = mapped_column(String(20))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_ms: Mapped[int] = mapped_column(BigInteger)


def is_stopped_by_sweep() -> ColumnElement[bool]:
    """The condition that a job was cancelled by its sweep, not by a user.

    A sweep stops a trial, or the other jobs of a trial of which one failed or was cancelled by a user.
    Earlier versions did not mark the job that a user cancelled. If no job of a trial that failed as cancelled
    is marked, any of its jobs may be the one that the user cancelled.
    """
    other = aliased(Job)
    is_own_trial = (SweepTrial.sweep_id == Job.sweep_id) & (SweepTrial.trial == Job.trial)
    has_marked_job = exists().where(
        other.sweep_id == Job.sweep_id, other.trial == Job.trial, _code(other.error) == CANCELLED
    )
    failed = (SweepTrial.status == TrialStatus.FAILED) & (
        _code(SweepTrial.error).is_distinct_from(CANCELLED) | has_marked_job.correlate(Job)
    )
    stopped = exists().where(is_own_trial, (SweepTrial.status == TrialStatus.STOPPED) | failed)
    by_sweep = _code(Job.error).is_distinct_from(CANCELLED)
    return (Job.status == Status.CANCELLED) & Job.sweep_id.is_not(None) & by_sweep & stopped


def _code(error: InstrumentedAttribute[dict[str, Any] | None]) -> ColumnElement[str]:
    """The code of an error; SQL's null if there is none, also where the column has JSON's null."""
    code: ColumnElement[str] = error["code"].as_string()
    return code
