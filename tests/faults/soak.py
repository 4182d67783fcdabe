"""Kill processes at random for a given time: ``make soak MINUTES=30``. The same seed repeats the kills.

After each kill, the next one is armed. A kill counts if the killed process held a running job, whose log then
records a worker loss. Meanwhile, urgent jobs of another owner preempt the long ones of three. After each kill, the
counts of each owner must be those of its jobs; at the end, every job must have ended once, completely, and with the
bits of an undisturbed one. The seed is printed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from service.jobs.events import EventType
from service.states import TERMINAL, Reason, Request, Status
from service.storage.tables import Event, Job
from tests.conftest import create_database, serve_postgres
from tests.faults.harness import FaultHarness, kill_training_child, open_harness
from tests.faults.invariants import Reference, owner_counts
from tests.faults.sweeps.runs import LIFT_LOSS_LIMIT, SEARCHES, Killer, has_ended, run_undisturbed, submit, until_end
from tests.faults.two_machines import MACHINES, open_two_machines, train_references
from tests.waiting import wait_until
from tests.workers.conftest import kill_groups

PLACES = (
    *("began", "restored", "batch_done", "epoch_trained", "file_written.checkpoint", "file_written.sample"),
    *("file_renamed.checkpoint", "file_renamed.sample", "files_stored", "epoch_committing", "epoch_committed"),
    *("handed_over", "overlapping", "succeeding", "succeeded", "cleaned", "reported", "commanded", "claimed"),
)
BETWEEN_JOBS = frozenset({"succeeded", "cleaned", "reported"})
"""Points at which the killed process has no running job: one has ended, and the next is not claimed."""
WORKER_WITH_CHILDREN = "a worker with its children, at any moment"
RANDOM_CHILD = "a child, at any moment"
SPEC: dict[str, Any] = {"epochs": 200}
"""It runs for long enough to be preempted."""
URGENT_SPEC: dict[str, Any] = {"epochs": 12, "priority": 9}
OWNERS = (None, "ann", "bob")
URGENT_OWNER = "carl"
URGENT_SHARE = 0.8
"""Of the kills without an urgent job, those before which some are submitted."""
LEASE_S = 6.0


@dataclass
class Soak:
    """Several workers, a queue that never empties, and one kill after another."""

    harness: FaultHarness
    rng: random.Random
    worker_count: int
    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    open_jobs: list[str] = field(default_factory=list)
    urgent_jobs: list[str] = field(default_factory=list)
    """All that were submitted."""
    stopping: bool = False

    def run(self, seconds: float, max_kills: int) -> None:
        """Kill until the time is over, or ``max_kills`` have counted, with a tenth as many preemptions; then let every
        job end."""
        self.harness.lease_s = LEASE_S
        self.harness.patch(LIFT_LOSS_LIMIT)
        self.harness.start("workers.scheduler")
        self.workers = [self.harness.start() for _ in range(self.worker_count)]
        started = last_report = time.monotonic()
        while not self.stopping and time.monotonic() - started < seconds:
            if self.total >= max_kills and self.preemptions() >= max_kills // 10:
                break
            self._fill_queue()
            self._kill_one()
            kept, counted = owner_counts(self.harness.database)
            assert kept == counted, "I12: the counts of an owner are not those of its jobs"
            if time.monotonic() - last_report > 60:
                last_report = time.monotonic()
                ended = len(self.harness.accepted) - len(self.open_jobs)
                print(
                    f"  after {(last_report - started) / 60:.0f} min: {self.total} kills, {ended} jobs ended, "
                    f"preemptions: {self.preemptions()}",
                    flush=True,
                )
        for place in PLACES:
            (self.harness.points / place).unlink(missing_ok=True)
        self._restart_workers()
        self.harness.until_all_end(600)

    @property
    def total(self) -> int:
        return sum(count for place, count in self.kills.items() if place not in BETWEEN_JOBS)

    def preemptions(self) -> int:
        """The number of leases that ended for an urgent job."""
        reason = Event.data["reason"].as_string()
        query = select(func.count()).where(Event.type == EventType.STATUS, reason == Reason.PREEMPTED)
        with self.harness.database.read() as session:
            return session.scalar(query) or 0

    def references(self, usual: Reference, urgent: Reference) -> dict[str, Reference]:
        """What each job must result in."""
        return dict.fromkeys(self.harness.accepted, usual) | dict.fromkeys(self.urgent_jobs, urgent)

    def _fill_queue(self) -> None:
        self.open_jobs = [job_id for job_id in self.open_jobs if self.harness.job(job_id).status not in TERMINAL]
        urgent = set(self.urgent_jobs) & set(self.open_jobs)
        while len(self.open_jobs) - len(urgent) < self.worker_count + 2:
            self.open_jobs.append(self.harness.submit(owner=self.rng.choice(OWNERS), **SPEC))
        if not urgent and self.rng.random() < URGENT_SHARE:
            self._submit_urgent_jobs(self.rng.randint(1, 2))

    def _submit_urgent_jobs(self, count: int) -> None:
        """Submit urgent jobs when no slot is free, and wait until a job is asked to make room, or longer: the kill that
        follows strikes one that is about to be released, or has been."""

        def states() -> list[Job]:
            return [self.harness.job(job_id) for job_id in self.open_jobs]

        def are_full() -> bool:
            return sum(job.status == Status.RUNNING for job in states()) == self.worker_count

        with contextlib.suppress(AssertionError):  # after a kill, a worker starts
            wait_until(are_full, "jobs in all slots", 5)
        new = [self.harness.submit(owner=URGENT_OWNER, **URGENT_SPEC) for _ in range(count)]
        self.urgent_jobs += new
        self.open_jobs += new
        with contextlib.suppress(AssertionError):
            wait_until(lambda: any(job.requested == Request.PREEMPT for job in states()), "preemption", 3)
        time.sleep(self.rng.choice((0, 0.5)))

    def _kill_one(self) -> None:
        target = self.rng.choice([*PLACES, *[RANDOM_CHILD] * 3, WORKER_WITH_CHILDREN])
        if target == WORKER_WITH_CHILDREN:
            worker = self.rng.choice(self.workers)
            had_job = self._holds_a_job(worker.pid)
            kill_groups([worker])
            self.kills[target] += had_job
        elif target == RANDOM_CHILD:
            time.sleep(self.rng.uniform(0, 0.3))
            busy = [worker.pid for worker in self.workers if self._holds_a_job(worker.pid)]
            self.kills[target] += bool(busy) and kill_training_child(self.rng.choice(busy))
        else:
            self.harness.arm(target)
            with contextlib.suppress(AssertionError):  # not reached in time: it stays armed, and the next kill follows
                self.harness.until_reached(target, 60)
                self.kills[target] += 1
        self._restart_workers()

    def _restart_workers(self) -> None:
        self.workers = [worker if worker.poll() is None else self.harness.start() for worker in self.workers]

    def _holds_a_job(self, pid: int) -> bool:
        jobs = [self.harness.job(job_id) for job_id in self.open_jobs]
        return any(job.status == Status.RUNNING and f"-{pid}-" in (job.lease_owner or "") for job in jobs)


def main() -> int:
    """Run for the given time, then check everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--kills", type=int, default=10**9, help="or until so many counted, a tenth preempted")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=0, help="train so many on two machines that share no disk, instead")
    parser.add_argument("--sweeps", action="store_true", help="kill while sweeps run, and compare their decisions")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    if options.jobs:
        return _soak_two_machines(seed, options.jobs)
    print(f"seed {seed}, {options.minutes:g} minutes, {options.workers} workers, {options.database}", flush=True)
    home = Path(tempfile.mkdtemp(prefix="tapeline-soak-"))
    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{home / 'soak.db'}"
        if options.database == "postgresql":
            url = create_database(stack.enter_context(serve_postgres()))
        (_soak_sweeps if options.sweeps else _soak_jobs)(home, url, seed, options)
    shutil.rmtree(home, ignore_errors=True)
    return 0


def _soak_jobs(home: Path, url: str, seed: int, options: argparse.Namespace) -> None:
    harness = open_harness(home / "soak", url)
    soak = Soak(harness, random.Random(seed), options.workers)

    def stop(*_: object) -> None:
        soak.stopping = True  # a soak that is stopped early is checked all the same

    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, stop)
    try:
        usual, urgent = _reference(home / "usual", SPEC), _reference(home / "urgent", URGENT_SPEC)
        started = time.monotonic()
        soak.run(options.minutes * 60, options.kills)
        minutes = (time.monotonic() - started) / 60
        harness.check(soak.references(usual, urgent))
        preemptions = soak.preemptions()
        assert soak.total < 100 or preemptions >= soak.total // 15, f"{preemptions} preemptions are too few"
    except BaseException:
        print(f"RED with seed {seed}; everything lies in {home}", flush=True)
        harness.stop()
        raise
    for place, count in sorted(soak.kills.items()):
        print(f"  {count:5d}  {place}" + (", between two jobs" if place in BETWEEN_JOBS else ""))
    leases = sum(harness.job(job_id).lease for job_id in harness.accepted)
    print(
        f"{soak.total} kills in {minutes:.0f} minutes that struck a process with a running job, "
        f"{harness.worker_losses()} lost workers in the jobs' logs, preemptions: {preemptions}; "
        f"{len(harness.accepted)} jobs, {leases} leases: 0 lost, 0 doubled, 0 bits different, counts as the rows "
        f"(seed {seed})"
    )
    harness.database.close()


def _soak_sweeps(home: Path, url: str, seed: int, options: argparse.Namespace) -> None:
    """Run one sweep after another under kills; each must decide as undisturbed, and train no epoch twice."""
    undisturbed = {}
    for name, document in SEARCHES.items():
        (home / name).mkdir()
        undisturbed[name] = run_undisturbed(home / name, document)
    (home / "soak").mkdir()
    harness = open_harness(home / "soak" / "home", url)
    killer = Killer(harness, random.Random(seed), options.workers, (0.3, 1.5))
    started, sweep_count = time.monotonic(), 0

    def is_over() -> bool:
        return time.monotonic() - started > options.minutes * 60 or killer.total >= options.kills

    try:
        killer.start()
        while not is_over():
            name = list(SEARCHES)[sweep_count % len(SEARCHES)]
            # Without reuse: otherwise, the results of an equal sweep would be reused, and nothing trained.
            sweep_id = submit(harness, SEARCHES[name] | {"reuse": "never"})
            until = functools.partial(has_ended, harness, sweep_id)
            killer.run(lambda until=until: is_over() or until(), max_kills=options.kills)
            assert until_end(harness, sweep_id, 600) == undisturbed[name], f"{name}: other decisions"
            sweep_count += 1
            print(f"  sweep {sweep_count} ({name}): the same decisions, {killer.total} kills so far", flush=True)
        killer.stop()
    except BaseException:
        print(f"RED with seed {seed}; everything lies in {home}", flush=True)
        harness.stop()
        raise
    minutes = (time.monotonic() - started) / 60
    kills_by_kind = ", ".join(f"{count} {what}" for what, count in sorted(killer.kills.items()))
    result = f"{sweep_count} sweeps: 0 lost, 0 doubled, 0 different (seed {seed})"
    print(f"{killer.total} kills ({kills_by_kind}) in {minutes:.0f} minutes; {result}")
    harness.database.close()


def _soak_two_machines(seed: int, jobs: int) -> int:
    """Train jobs on two machines while processes and servers are killed."""
    print(f"seed {seed}, {jobs} jobs on two machines", flush=True)
    home = Path(tempfile.mkdtemp(prefix="tapeline-soak-"))
    references = train_references(home / "references")
    (home / "soak").mkdir()
    with open_two_machines(home / "soak", seed) as machines:
        started = time.monotonic()
        try:
            machines.run(jobs, pause_s=(1, 10), outage_s=(0, 8), report=functools.partial(print, flush=True))
            minutes = (time.monotonic() - started) / 60
            machines.check(references)
        except BaseException:
            print(f"RED with seed {seed}; everything lies in {home}", flush=True)
            raise
        harness = machines.harness
        for target, count in sorted(machines.kills.items()):
            print(f"  {count:5d}  {target}" + (", a worker with its children" if target in MACHINES else ""))
        leases = sum(harness.job(job_id).lease for job_id in harness.accepted)
        print(
            f"{machines.kills.total()} kills in {minutes:.0f} minutes, {harness.worker_losses()} lost workers in the "
            f"jobs' logs; {jobs} jobs, {leases} leases: 0 lost, 0 doubled, 0 digests different (seed {seed})"
        )
    shutil.rmtree(home, ignore_errors=True)
    return 0


def _reference(home: Path, spec: Mapping[str, Any]) -> Reference:
    home.mkdir()
    with contextlib.closing(open_harness(home / "reference", f"sqlite:///{home / 'reference.db'}")) as harness:
        harness.submit(**spec)
        harness.start()
        harness.until_all_end(600)
        reference = Reference.of(harness.database, harness.accepted[0])
        harness.check(reference)
        return reference


if __name__ == "__main__":
    sys.exit(main())
