"""The queue: waiting jobs in the order in which workers will claim them, and why they wait."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from service.jobs import worker_registry
from service.jobs.owner_queue import FIRST_URGENT, belongs_to, has_data, is_queued
from service.spec.metric_info import duration
from service.states import Status
from service.storage.database import now_ms, visible
from service.storage.fairness import room
from service.storage.owner_tables import OwnerQueue
from service.storage.tables import Job, Worker
from service.wording import counted, listed, ordinal

CLAIM_ORDER: Final = (Job.priority.desc(), Job.queued_ms, Job.id)
"""The order in which the queued jobs of an owner are claimed, as in the index ``ix_jobs_lane``."""
MAX_POSITION: Final = 1000
"""Claims are simulated up to here."""
_STARTING_S: Final = 10.0
"""A job that has waited for less, while a slot is free, is about to start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A queued job, with its place as simulated claims estimate it."""

    job: Job
    position: int | None
    """From 1, across all owners; ``None`` beyond ``MAX_POSITION``, or if the owner's jobs are not claimed."""
    ahead_own: int
    ahead_others: int | None
    waited_s: float
    start_ms: int | None
    """When it is expected to start; ``None``: unknown."""

    @property
    def start_in_s(self) -> float | None:
        """Seconds until it is expected to start; ``None``: unknown."""
        return (self.start_ms - self.job.queued_ms) / 1000 - self.waited_s if self.start_ms is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """The head of the queue."""

    waiting: Sequence[Waiting]
    total: int
    """Queued jobs of all owners."""
    own: int
    """How many of these the reader can see."""
    reason: str | None
    """Why the reader's first job has not started: ``share``, ``cap``, ``quota``, ``starting``, ``dataset``, or
    ``no_worker``, if it is newer than all workers; ``None``: none waits."""
    reason_text: str | None

    def sentence(self, *, is_own: bool = True) -> str:
        """Where its first job stands, when it is expected to start, and why it waits.

        Args:
            is_own: whether the reader owns it.
        """
        first, text = (
            self.waiting[0],
            f"{self.reason_text[:1].upper()}{self.reason_text[1:]}." if self.reason_text else "",
        )
        parts = [text] if is_own else []
        if first.position is None:
            return " ".join(parts) or "It waits in the queue."
        own, others = first.ahead_own, first.ahead_others or 0
        names = ("yours", "others") if is_own else ("its owner", "others")
        counts = [(count, name) for count, name in zip((own, others), names, strict=True) if count]
        noun = "" if len(counts) > 1 else "jobs " if own + others > 1 else "job "
        before = listed(f"{count:,} {noun}of {name}" for count, name in counts)
        place = f"About {ordinal(first.position)} in the queue: {before} before it" if before else "Next in the queue"
        start_s = first.start_in_s
        if start_s is not None:
            place += f"; expected to start {f'in about {duration(start_s)}' if start_s >= 1 else 'now'}"
        return " ".join([f"{place}.", *parts])


@dataclass(frozen=True, slots=True)
class _Claim:
    """A simulated claim."""

    owner: str
    start_s: float | None
    """Seconds from now; ``None`` without workers."""


@dataclass(frozen=True, slots=True)
class _Forecast:
    """The next claims, as they are expected now."""

    rows: Sequence[OwnerQueue]
    slots: int
    free: int
    datasets: AbstractSet[str] | None
    """That a worker has, besides uploads; ``None``: all."""
    spec_version: int | None
    """As of ``worker_registry.newest_spec``."""
    claims: Sequence[_Claim]
    places: Mapping[str, Sequence[int]]
    """Of each owner's jobs, from 1."""
    now: int

    def waiting(self, job: Job, index: int) -> Waiting:
        """A queued job, before which are ``index`` of the same owner."""
        places = self.places.get(job.owner or "", ())
        position = places[index] if index < len(places) else None
        start_s = self.claims[position - 1].start_s if position is not None else None
        return Waiting(
            job=job,
            position=position,
            ahead_own=index,
            ahead_others=position - 1 - index if position is not None else None,
            waited_s=max(0, self.now - job.queued_ms) / 1000,
            start_ms=self.now + int(start_s * 1000) if start_s is not None else None,
        )

    def queue(self, waiting: Sequence[Waiting], owner: str | None) -> Queue:
        """The jobs of an owner (``None``: of all), and why the first has not started."""
        own = sum(row.queued for row in self.rows if owner in (None, row.owner))
        reason, text = self._reason(waiting[0]) if waiting else (None, None)
        total = sum(row.queued for row in self.rows)
        return Queue(waiting=waiting, total=total, own=own, reason=reason, reason_text=text)

    def _reason(self, first: Waiting) -> tuple[str, str]:
        """Why a job waits although workers claim jobs."""
        rows, slots, name = self.rows, self.slots, first.job.owner or ""
        if (text := worker_registry.reason_to_wait(first.job, self.spec_version)) is not None:
            return "no_worker", text
        data = first.job.resolved["dataset"]["name"]
        if first.job.upload_id is None and self.datasets is not None and data not in self.datasets:
            return "dataset", f"no worker has the folder {data} in TAPELINE_DATA: copy it there, or upload the dataset"
        row = next(row for row in rows if row.owner == name)
        if row.blocked is not None:
            return row.blocked, "the CPU time of the last 30 days is used up: jobs wait until some of it is older"
        if not room.has_room(cap=row.cap, running=row.running):
            return "cap", f"{counted(row.running, 'job')} of yours run, the most at a time"
        if self.free > 0 and first.waited_s < _STARTING_S:
            return "starting", "a worker is about to start it"
        if len(rows) == 1:
            return "share", f"you run {row.running} of {counted(slots, 'slot')}"
        if len({other.weight for other in rows}) == 1:
            return "share", f"{len(rows):,} owners share {counted(slots, 'slot')} equally; you run {row.running}"
        share = f"{slots * row.weight / sum(other.weight for other in rows):.1f}".removesuffix(".0")
        return "share", f"your share is {share} of {counted(slots, 'slot')}; you run {row.running}"


def read(session: Session, *, owner: str | None = None, limit: int = 100) -> Queue:
    """The first queued jobs of an owner (``None``: of all), with their positions in the whole queue."""
    forecast = _forecast(session)
    first = Counter(claim.owner for claim in forecast.claims[:limit])
    waiting: list[Waiting] = []
    for name, count in {owner: limit}.items() if owner is not None else first.items():
        query = select(Job).where(is_queued(), belongs_to(name)).order_by(*CLAIM_ORDER).limit(count)
        waiting += [forecast.waiting(job, index) for index, job in enumerate(session.scalars(query))]
    waiting.sort(key=lambda item: (item.position is None, item.position or 0, item.ahead_own))
    return forecast.queue(waiting, owner)


def read_one(session: Session, job: Job) -> Queue:
    """The queue with one of its jobs, and why it has not started."""
    owner = job.owner or ""
    is_older = or_(Job.queued_ms < job.queued_ms, and_(Job.queued_ms == job.queued_ms, Job.id < job.id))
    is_before = or_(Job.priority > job.priority, and_(Job.priority == job.priority, is_older))
    query = select(func.count()).where(is_queued(), belongs_to(owner), is_before)
    forecast = _forecast(session)
    return forecast.queue([forecast.waiting(job, session.scalar(query) or 0)], owner)


def _forecast(session: Session) -> _Forecast:
    rows = session.scalars(select(OwnerQueue).where((OwnerQueue.queued > 0) | (OwnerQueue.running > 0))).all()
    claiming = worker_registry.claiming_workers(session)
    slots, datasets = (
        sum(worker.slots for worker in claiming),
        worker_registry.datasets(claiming) if claiming else None,
    )
    responsive = {worker.id: worker.slots for worker, _ in worker_registry.responsive_workers(session)}
    ends = _running(session, responsive, rows)
    free = sum(responsive.values()) - sum(end.frees_slot for end in ends)
    claims = _simulate(rows, _urgent_jobs(session), ends, sum(responsive.values()))
    places: dict[str, list[int]] = {}
    for place, claim in enumerate(claims, start=1):
        places.setdefault(claim.owner, []).append(place)
    version, now = worker_registry.newest_spec(claiming), session.scalar(select(now_ms())) or 0
    return _Forecast(rows, slots, free, datasets, version, claims, places, now)


@dataclass(frozen=True, slots=True, order=True)
class _End:
    """The expected end of a running job."""

    after_s: float
    owner: str
    frees_slot: bool
    """Whether its worker then claims another one."""


def _simulate(
    rows: Sequence[OwnerQueue], urgent: Mapping[str, Sequence[int]], ends: Sequence[_End], slots: int
) -> list[_Claim]:
    """The next claims, if each job takes as long as its owner's usually do."""
    waiting = {row.owner: row for row in rows if row.queued > 0 and row.blocked is None}
    left = {name: row.queued for name, row in waiting.items()}
    running = {row.owner: row.running for row in rows}
    priorities = {name: list(urgent.get(name, ())) for name in waiting}
    due, load = {name: row.due for name, row in waiting.items()}, {name: row.load for name, row in waiting.items()}

    def is_full(name: str) -> bool:
        return slots > 0 and not room.has_room(cap=waiting[name].cap, running=running[name])

    def turn(name: str) -> tuple[int, float, float, str]:
        return -max(priorities[name], default=0), due[name], load[name], name

    turns = [turn(name) for name in waiting if not is_full(name)]
    heapq.heapify(turns)
    pending = sorted(ends)
    free, now_s = slots - sum(end.frees_slot for end in pending), 0.0
    claims: list[_Claim] = []
    while len(claims) < MAX_POSITION:
        if not turns or free <= 0 < slots:
            if not pending:
                break
            end = heapq.heappop(pending)
            now_s, free = max(now_s, end.after_s), free + end.frees_slot
            was_full = end.owner in waiting and is_full(end.owner)
            running[end.owner] -= 1
            if was_full and left[end.owner] and not is_full(end.owner):
                heapq.heappush(turns, turn(end.owner))
            continue
        name = heapq.heappop(turns)[-1]
        row = waiting[name]
        claims.append(_Claim(name, now_s if slots else None))
        if slots:
            heapq.heappush(pending, _End(now_s + row.mean_seconds, name, frees_slot=True))
        free, left[name], running[name] = free - 1, left[name] - 1, running[name] + 1
        due[name] += row.mean_seconds / row.weight
        load[name] += 1 / row.weight
        del priorities[name][:1]
        if left[name] and not is_full(name):
            heapq.heappush(turns, turn(name))
    return claims


def _urgent_jobs(session: Session) -> dict[str, list[int]]:
    """The priorities of each owner's urgent jobs, the highest first."""
    query = select(Job.owner, Job.priority).where(is_queued(), Job.priority >= FIRST_URGENT)
    found: dict[str, list[int]] = {}
    for owner, priority in session.execute(query.order_by(Job.priority.desc()).limit(MAX_POSITION)):
        found.setdefault(owner or "", []).append(priority)
    return found


def _running(session: Session, workers: Mapping[str, int], rows: Sequence[OwnerQueue]) -> list[_End]:
    """When the running jobs are expected to end."""
    means = {row.owner: row.mean_seconds for row in rows}
    columns = (Job.owner, Job.step, Job.steps, Job.steps_per_second, Job.lease_owner)
    return [
        _End((steps - step) / rate if rate else means.get(owner or "", 0.0), owner or "", worker in workers)
        for owner, step, steps, rate, worker in session.execute(select(*columns).where(Job.status == Status.RUNNING))
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """How many slots jobs want and workers have, and why the queued jobs wait."""

    slots: int
    """Of the workers that claim jobs."""
    wanted: int
    """Running jobs, and those queued ones that could run if there were slots."""
    reasons: Mapping[str, int]
    """The number of queued jobs for each of ``REASONS``."""


REASONS: Final = ("share", "cap", "quota", "dataset", "no_worker", "storage", "memory", "starting")
"""Why jobs wait. A job beyond its owner's cap waits for that, others until a slot is free: ``share``."""


def demand(
    session: Session, workers: Sequence[Worker], *, without_data: Mapping[str, int], unknown: Mapping[str, int]
) -> Demand:
    """Count the slots and the waiting jobs; cheap, since the counts of owners are stored.

    Args:
        workers: those that are alive.
        without_data: as of ``count_without_data``.
        unknown: as of ``count_unknown``.
    """
    reasons = dict.fromkeys(REASONS, 0)
    slots = sum(worker.slots for worker in workers if worker_registry.is_claiming(worker))
    rows = session.scalars(select(OwnerQueue).where((OwnerQueue.queued > 0) | (OwnerQueue.running > 0))).all()
    running = sum(row.running for row in rows)
    responsive = [worker for worker, _ in worker_registry.responsive_workers(session)]
    free = sum(worker.slots for worker in responsive) - _count_busy(session, responsive)
    no_start = worker_registry.reason_for_none(workers)
    startable = 0
    for row in rows:
        if row.blocked is not None:
            reasons[row.blocked] += row.queued
            continue
        newer = 0 if no_start else min(row.queued, unknown.get(row.owner, 0))
        reasons["no_worker"] += newer
        hopeless = 0 if no_start else min(row.queued - newer, without_data.get(row.owner, 0))
        left = row.queued - newer - hopeless
        may_start = room.startable(left, cap=row.cap, running=row.running)
        reasons["dataset"] += hopeless
        reasons["cap"] += left - may_start
        startable += may_start
    starting = 0 if no_start else min(startable, free)
    reasons["starting"] += starting
    reasons[no_start or "share"] += startable - starting
    return Demand(slots=slots, wanted=running + startable, reasons=reasons)


def _count_busy(session: Session, workers: Sequence[Worker]) -> int:
    """The slots of these workers that are taken."""
    query = select(Job.lease_owner, func.count()).where(Job.status == Status.RUNNING).group_by(Job.lease_owner)
    running = dict(session.execute(query).all())
    return sum(min(running.get(worker.id, 0), worker.slots) for worker in workers)


def count_without_data(session: Session) -> dict[str, int]:
    """For each owner, the number of queued jobs whose dataset no worker has. It reads the specs of all queued jobs."""
    claiming = worker_registry.claiming_workers(session)
    if not claiming or (known := worker_registry.datasets(claiming)) is None:
        return {}
    query = select(Job.owner, func.count()).where(is_queued(), ~has_data(known)).group_by(Job.owner)
    return {owner or "": count for owner, count in session.execute(query)}


def count_unknown(session: Session) -> dict[str, int]:
    """For each owner, the number of queued jobs whose spec no worker knows. It reads the rows of all queued jobs."""
    version = worker_registry.newest_spec(worker_registry.claiming_workers(session))
    if version is None:
        return {}
    query = select(Job.owner, func.count()).where(is_queued(), ~worker_registry.is_known(version)).group_by(Job.owner)
    return {owner or "": count for owner, count in session.execute(query)}


def waiting_by_owner(session: Session) -> dict[str, int]:
    """The number of queued jobs of each owner, in descending order; ``''``: of everybody without a key."""
    query = select(OwnerQueue.owner, OwnerQueue.queued).where(OwnerQueue.queued > 0)
    return dict(session.execute(query.order_by(OwnerQueue.queued.desc())).all())


def running(session: Session, *, owner: str | None = None) -> dict[str, list[Job]]:
    """The running jobs of an owner (``None``: of all), by the id of their worker."""
    is_running = Job.status == Status.RUNNING
    query = select(Job).where(is_running, visible(Job.owner, owner)).order_by(Job.started_ms, Job.id)
    by_worker: dict[str, list[Job]] = {}
    for job in session.scalars(query):
        by_worker.setdefault(job.lease_owner or "", []).append(job)
    return by_worker


def stale_queued(session: Session, *, waited_s: float, limit: int) -> Sequence[str]:
    """Ids of queued jobs that have waited for at least ``waited_s`` seconds."""
    is_stale = Job.queued_ms < now_ms() - int(waited_s * 1000)
    query = select(Job.id).where(Job.status == Status.QUEUED, is_stale).order_by(*CLAIM_ORDER).limit(limit)
    return session.scalars(query).all()


def count_waiting(session: Session, owner: str) -> int:
    """The number of an owner's queued jobs."""
    return session.scalar(select(OwnerQueue.queued).where(OwnerQueue.owner == owner)) or 0
