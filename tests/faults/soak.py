"""Kills at random for as long as one likes: ``make soak MINUTES=30``. It prints its seed; the same seed, the same plan.

A kill counts where the killed process held a running job. At the end every job must have ended once, whole, and with
the bits of an undisturbed one.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from service.contract.states import TERMINAL, Status
from tests.faults.oracle import Reference
from tests.faults.yard import Yard, kill_group, open_yard
from tests.workers.conftest import children_of, is_alive

PLACES = (
    *("began", "restored", "batch_done", "epoch_trained", "file_written.checkpoint", "file_written.sample"),
    *("file_renamed.checkpoint", "file_renamed.sample", "files_stored", "epoch_committing", "epoch_committed"),
    *("succeeding", "succeeded", "claimed"),
)
SUPERVISOR = "the whole worker"
AT_RANDOM = "a child, at any moment"


def main() -> int:
    """Run for so many minutes, then look at everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--database", default=None, help="an empty PostgreSQL database; default: SQLite")
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"seed {seed}, {chosen.minutes:g} minutes, {chosen.workers} workers", flush=True)
    home = Path(tempfile.mkdtemp(prefix="tapeline-soak-"))
    yard = _open(home / "soak", chosen.database)
    try:
        reference = _reference(home / "reference")
        kills = _soak(yard, random.Random(seed), chosen.minutes * 60, chosen.workers)
        yard.check(reference)
    except BaseException:
        print(f"RED with seed {seed}; everything lies in {home}", flush=True)
        yard.stop()
        raise
    for place, count in sorted(kills.items()):
        print(f"  {count:5d}  {place}")
    jobs = [yard.job(job_id) for job_id in yard.accepted]
    print(
        f"{sum(kills.values())} kills that counted, {len(jobs)} jobs, {sum(job.lease for job in jobs)} leases: "
        f"0 lost, 0 doubled, 0 bits different (seed {seed})"
    )
    shutil.rmtree(home, ignore_errors=True)
    return 0


def _open(home: Path, url: str | None) -> Yard:
    home.parent.mkdir(exist_ok=True)
    return open_yard(home, url or f"sqlite:///{home.parent / (home.name + '.db')}")


def _reference(home: Path) -> Reference:
    yard = _open(home, None)
    yard.submit()
    yard.start()
    yard.until_all_end()
    found = Reference.of(yard.database, yard.accepted[0])
    yard.check(found)
    return found


def _soak(yard: Yard, rng: random.Random, seconds: float, count: int) -> collections.Counter[str]:
    """Keep some jobs in the queue and strike again and again; then let everything come to an end."""
    kills: collections.Counter[str] = collections.Counter()
    yard.start("workers.reconcile")
    workers = [yard.start() for _ in range(count)]
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        open_jobs = [job_id for job_id in yard.accepted[-20:] if yard.job(job_id).status not in TERMINAL]
        for _ in range(count + 1 - len(open_jobs)):
            yard.submit()
        # Three deaths in a row without an epoch would be the job's own fault: an epoch lies between two strikes.
        _await_epoch(yard)
        before, counted = _attempts(yard), sum(kills.values())
        how = rng.choice([*PLACES, *[AT_RANDOM] * 3, SUPERVISOR])
        if how == SUPERVISOR:
            number = rng.randrange(count)
            held = _holds_a_job(yard, workers[number].pid)
            kill_group(workers[number])
            workers[number] = yard.start()
            kills[how] += held
        elif how == AT_RANDOM:
            time.sleep(rng.uniform(0, 0.5))
            busy = [worker for worker in workers if _holds_a_job(yard, worker.pid)]
            if busy:
                kills[how] += _kill_training_child(rng.choice(busy).pid)
        else:
            yard.arm(how)
            try:
                yard.until_struck(how, 20)
                kills[how] += how != "succeeded"  # the job had ended just before
            except AssertionError:
                (yard.points / how).unlink(missing_ok=True)
            for number, worker in enumerate(workers):
                if worker.poll() is not None:  # "claimed" takes the supervisor
                    workers[number] = yard.start()
        if sum(kills.values()) > counted:
            _await_burial(yard, before)
    yard.until_all_end(300)
    return kills


def _await_epoch(yard: Yard) -> None:
    """Until every running job has finished an epoch since its last death."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        jobs = [yard.job(job_id) for job_id in yard.accepted[-20:]]
        if all(job.deaths < 2 for job in jobs if job.status not in TERMINAL):
            return
        time.sleep(0.05)


def _attempts(yard: Yard) -> int:
    return sum(yard.job(job_id).attempt for job_id in yard.accepted[-20:])


def _await_burial(yard: Yard, before: int) -> None:
    """Until the death is on record: a worker's only when its lease is over."""
    deadline = time.monotonic() + 4 * yard.lease_s
    while _attempts(yard) == before and time.monotonic() < deadline:
        time.sleep(0.05)


def _holds_a_job(yard: Yard, pid: int) -> bool:
    jobs = [yard.job(job_id) for job_id in yard.accepted[-20:]]
    return any(job.status == Status.RUNNING and f"-{pid}-" in (job.lease_owner or "") for job in jobs)


def _kill_training_child(worker: int) -> bool:
    """Kill the child that has used the most processor time; the other one is the spare."""

    def ticks(pid: int) -> int:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return -1
        return int(fields[11]) + int(fields[12])

    children = [pid for pid in children_of(worker) if is_alive(pid)]
    if not children:
        return False
    try:
        os.kill(max(children, key=ticks), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
