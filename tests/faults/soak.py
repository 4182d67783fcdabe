"""Kills at random for as long as one likes: ``make soak MINUTES=30``. It prints its seed; the same seed, the same plan.

As soon as one kill has struck, the next is armed. A kill counts where the killed process held a running job: the job's
log says that a worker was lost. At the end every job must have ended once, whole, and with the bits of an undisturbed
one.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.states import TERMINAL, Status
from tests.conftest import create_database, serve_postgres
from tests.faults.harness import FaultHarness, kill_group, kill_training_child, open_harness
from tests.faults.invariants import Reference
from tests.faults.sweeps.runs import NOBODYS_FAULT, SEARCHES, Killer, has_ended, run_undisturbed, submit, until_end

PLACES = (
    *("began", "restored", "batch_done", "epoch_trained", "file_written.checkpoint", "file_written.sample"),
    *("file_renamed.checkpoint", "file_renamed.sample", "files_stored", "epoch_committing", "epoch_committed"),
    *("handed_over", "overlapping", "succeeding", "succeeded", "cleaned", "reported", "commanded", "claimed"),
)
BETWEEN_JOBS = frozenset({"succeeded", "cleaned", "reported"})
"""Here the killed process has no running job: that has ended, or the next one has not been claimed."""
SUPERVISOR = "a worker with its children, at any moment"
AT_RANDOM = "a child, at any moment"
SPEC: dict[str, Any] = {"epochs": 12}
LEASE_S = 6.0


@dataclass
class Soak:
    """Some workers, a queue that never runs dry, and one strike after the other."""

    harness: FaultHarness
    rng: random.Random
    count: int
    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    open_jobs: list[str] = field(default_factory=list)
    stopping: bool = False

    def run(self, seconds: float, wanted: int) -> None:
        """Strike until the time is over or so many kills counted; then let every job come to its end."""
        self.harness.lease_s = LEASE_S
        self.harness.patch(NOBODYS_FAULT)
        self.harness.start("workers.reconcile")
        self.workers = [self.harness.start() for _ in range(self.count)]
        began = told = time.monotonic()
        while not self.stopping and time.monotonic() - began < seconds and self.total < wanted:
            self._fill()
            self._strike()
            if time.monotonic() - told > 60:
                told = time.monotonic()
                ended = len(self.harness.accepted) - len(self.open_jobs)
                print(f"  after {(told - began) / 60:.0f} min: {self.total} kills, {ended} jobs ended", flush=True)
        for place in PLACES:
            (self.harness.points / place).unlink(missing_ok=True)
        self._revive()
        self.harness.until_all_end(600)

    @property
    def total(self) -> int:
        return sum(count for place, count in self.kills.items() if place not in BETWEEN_JOBS)

    def _fill(self) -> None:
        self.open_jobs = [job_id for job_id in self.open_jobs if self.harness.job(job_id).status not in TERMINAL]
        while len(self.open_jobs) < self.count + 2:
            self.open_jobs.append(self.harness.submit(**SPEC))

    def _strike(self) -> None:
        how = self.rng.choice([*PLACES, *[AT_RANDOM] * 3, SUPERVISOR])
        if how == SUPERVISOR:
            worker = self.rng.choice(self.workers)
            held = self._holds_a_job(worker.pid)
            kill_group(worker)
            self.kills[how] += held
        elif how == AT_RANDOM:
            time.sleep(self.rng.uniform(0, 0.3))
            busy = [worker.pid for worker in self.workers if self._holds_a_job(worker.pid)]
            self.kills[how] += bool(busy) and kill_training_child(self.rng.choice(busy))
        else:
            self.harness.arm(how)
            with contextlib.suppress(AssertionError):  # nobody came by; it stays armed, and the next one is due
                self.harness.until_struck(how, 60)
                self.kills[how] += 1
        self._revive()

    def _revive(self) -> None:
        self.workers = [worker if worker.poll() is None else self.harness.start() for worker in self.workers]

    def _holds_a_job(self, pid: int) -> bool:
        jobs = [self.harness.job(job_id) for job_id in self.open_jobs]
        return any(job.status == Status.RUNNING and f"-{pid}-" in (job.lease_owner or "") for job in jobs)


def main() -> int:
    """Run for so many minutes, then look at everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--kills", type=int, default=10**9, help="or until so many counted")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--sweeps", action="store_true", help="kill while sweeps run, and compare their decisions")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"seed {seed}, {chosen.minutes:g} minutes, {chosen.workers} workers, {chosen.database}", flush=True)
    home = Path(tempfile.mkdtemp(prefix="tapeline-soak-"))
    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{home / 'soak.db'}"
        if chosen.database == "postgresql":
            url = create_database(stack.enter_context(serve_postgres()))
        (_strike_sweeps if chosen.sweeps else _strike_and_look)(home, url, seed, chosen)
    shutil.rmtree(home, ignore_errors=True)
    return 0


def _strike_and_look(home: Path, url: str, seed: int, chosen: argparse.Namespace) -> None:
    harness = open_harness(home / "soak", url)
    soak = Soak(harness, random.Random(seed), chosen.workers)

    def stop(*_: object) -> None:
        soak.stopping = True  # a soak that is stopped early is looked at all the same

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        reference = _reference(home)
        began = time.monotonic()
        soak.run(chosen.minutes * 60, chosen.kills)
        minutes = (time.monotonic() - began) / 60
        harness.check(reference)
    except BaseException:
        print(f"RED with seed {seed}; everything lies in {home}", flush=True)
        harness.stop()
        raise
    for place, count in sorted(soak.kills.items()):
        print(f"  {count:5d}  {place}" + (", between two jobs" if place in BETWEEN_JOBS else ""))
    leases = sum(harness.job(job_id).lease for job_id in harness.accepted)
    print(
        f"{soak.total} kills in {minutes:.0f} minutes that struck a process with a running job, {harness.deaths()} "
        f"lost workers in the jobs' logs; {len(harness.accepted)} jobs, {leases} leases: 0 lost, 0 doubled, 0 bits "
        f"different (seed {seed})"
    )
    harness.database.close()


def _strike_sweeps(home: Path, url: str, seed: int, chosen: argparse.Namespace) -> None:
    """Run one sweep after the other under kills; each must decide as undisturbed, and train no epoch twice."""
    undisturbed = {}
    for name, document in SEARCHES.items():
        (home / name).mkdir()
        undisturbed[name] = run_undisturbed(home / name, document)
    (home / "soak").mkdir()
    harness = open_harness(home / "soak" / "home", url)
    killer = Killer(harness, random.Random(seed), chosen.workers, (0.3, 1.5))
    began, ended = time.monotonic(), 0

    def is_over() -> bool:
        return time.monotonic() - began > chosen.minutes * 60 or killer.total >= chosen.kills

    try:
        killer.start()
        while not is_over():
            name = list(SEARCHES)[ended % len(SEARCHES)]
            # Without reuse: the results of an equal sweep would be reused, and nothing trained.
            sweep_id = submit(harness, SEARCHES[name] | {"reuse": "never"})
            until = functools.partial(has_ended, harness, sweep_id)
            killer.run(lambda until=until: is_over() or until(), most=chosen.kills)
            assert until_end(harness, sweep_id, 600) == undisturbed[name], f"{name}: other decisions"
            ended += 1
            print(f"  sweep {ended} ({name}): the same decisions, {killer.total} kills so far", flush=True)
        killer.stop()
    except BaseException:
        print(f"RED with seed {seed}; everything lies in {home}", flush=True)
        harness.stop()
        raise
    minutes = (time.monotonic() - began) / 60
    kinds = ", ".join(f"{count} {what}" for what, count in sorted(killer.kills.items()))
    result = f"{ended} sweeps: 0 lost, 0 doubled, 0 different (seed {seed})"
    print(f"{killer.total} kills ({kinds}) in {minutes:.0f} minutes; {result}")
    harness.database.close()


def _reference(home: Path) -> Reference:
    harness = open_harness(home / "reference", f"sqlite:///{home / 'reference.db'}")
    harness.submit(**SPEC)
    harness.start()
    harness.until_all_end(600)
    found = Reference.of(harness.database, harness.accepted[0])
    harness.check(found)
    return found


if __name__ == "__main__":
    sys.exit(main())
