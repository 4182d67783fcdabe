"""The invariants, checked after each step by reading the rows, without any code of the product.

A step is at most one transaction, so a check sees each of them alone: what it changed, which function of the product
made it, in which process, and under which leases.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from service.maintenance import store_migration
from service.states import SWEEP_ENDED, TERMINAL, Status
from service.storage.artifacts import ID_FILE
from tests.simulation.kernel.runtime import CURRENT
from tests.simulation.kernel.violation import Violation, require
from tests.simulation.kernel.world import World
from tests.simulation.parts.buckets import Bucket
from tests.simulation.parts.databases import Reach, Transaction
from tests.simulation.parts.postgresql import Reader
from tests.simulation.parts.users import Ask, Ledger
from tests.simulation.rules.branches import Branches
from tests.simulation.rules.leases import Leases
from tests.simulation.rules.messages import Messages
from tests.simulation.rules.rows import Row, read_rows
from tests.simulation.rules.sweeps import Sweeps

_QUEUE_COUNTS: Final = """
SELECT owner, running, queued, urgent,
    (SELECT COUNT(*) FROM jobs WHERE COALESCE(jobs.owner, '') = owner_queue.owner AND status = 'running'),
    (SELECT COUNT(*) FROM jobs WHERE COALESCE(jobs.owner, '') = owner_queue.owner AND status = 'queued'),
    COALESCE((SELECT MAX(priority) FROM jobs WHERE COALESCE(jobs.owner, '') = owner_queue.owner AND status = 'queued'
              AND priority >= 6), 0)
FROM owner_queue
"""


class Invariants:
    """What was there after the last step, and what may come of it."""

    def __init__(
        self,
        world: World,
        connection: sqlite3.Connection | Reader,
        reach: Reach,
        ledger: Ledger,
        sweep_digests: Sequence[str],
    ) -> None:
        self._world, self._connection, self._reach, self._ledger = world, connection, reach, ledger
        self._messages = Messages(world, connection)
        self._sweeps = Sweeps(world, connection, sweep_digests)
        self._leases = Leases(world, reach, ledger)
        self._branches = Branches(world.sometimes)
        self._changes = -1
        self._bucket_version = -1
        self._rows: dict[str, Row] = {}
        self._epochs: dict[str, list[str]] = {}
        """The metrics of all epochs of each job, in order."""
        self._paths: frozenset[str] = frozenset()
        self._asks: dict[str, Ask] = {}
        self._reasons: list[str] = []
        self._lost_files: set[str] = set()
        """Named by a database that went back: they may have been removed."""

    @property
    def is_quiescent(self) -> bool:
        """Whether every job and every sweep has ended."""
        has_ended = all(row.status in TERMINAL for row in self._rows.values())
        return has_ended and all(status in SWEEP_ENDED for status in self._sweeps.statuses.values())

    def check(self) -> None:
        """Check the step that was made last.

        Raises:
            Violation: an invariant does not hold.
        """
        transaction, self._reach.last = self._reach.last, None
        if (changes := self._connection.total_changes) != self._changes:
            self._changes = changes
            self._check_rows(transaction)
        elif transaction is not None:
            self._branches.count_nothing(transaction)
        self._check_files()

    def database_went_back(self) -> None:
        """The next difference is no step."""
        self._reach.restores += 1
        before, self._rows = self._rows, read_rows(self._connection)
        running = [row for row in before.values() if row.status == Status.RUNNING]
        if any((now := self._rows.get(row.id)) is None or now.lease_token != row.lease_token for row in running):
            self._world.sometimes("database restored under a lease")
        self._messages.forget()
        self._sweeps.forget()
        self._changes = self._connection.total_changes
        self._epochs.clear()
        self._read_paths()
        self._lost_files |= self._paths  # a worker may be about to remove them, by what it has committed

    # Rows

    def _check_rows(self, transaction: Transaction | None) -> None:
        before, now = self._rows, read_rows(self._connection)
        self._rows = now
        announced: Counter[tuple[str, str]] = Counter()
        changed = [(before.get(row.id), row) for row in now.values() if before.get(row.id) != row]
        for old, row in changed:
            self._check_events(old, row)
            self._branches.count(transaction, old, row, self._reasons)
            self._expect_messages(announced, old, row)
            if old is not None:
                self._leases.check_fence(transaction, old, now)
                self._check_transition(transaction, old, row)
            self._check_epochs(row)
        for job_id in before.keys() - now.keys():
            require(job_id in self._ledger.to_delete, "accepted jobs stay", f"{job_id} is gone, and nobody deleted it")
            require(before[job_id].status in TERMINAL, "accepted jobs stay", f"{job_id} was deleted unfinished")
        if changed or before.keys() != now.keys():
            self._read_paths()
            self._check_counts()
            self._check_sizes()
            self._check_accepted()
        self._sweeps.check(transaction, announced, now)
        self._messages.check(transaction, announced)

    def _expect_messages(self, announced: Counter[tuple[str, str]], old: Row | None, row: Row) -> None:
        has_ended = row.status in TERMINAL and (old is None or old.status not in TERMINAL)
        is_paused = row.status == Status.PAUSED and self._reasons[-1:] not in ([], ["changed"], ["paused_by_sweep"])
        if has_ended or is_paused:
            announced[f"job.{row.status}", row.id] += 1

    def _check_events(self, old: Row | None, row: Row) -> None:
        """Events are numbered without gaps, and a transition is in the transaction of its event."""
        after = old.last_seq if old is not None else 0
        query = "SELECT seq, type, data FROM events WHERE job_id = ? AND seq > ? ORDER BY seq"
        new = self._connection.execute(query, (row.id, after)).fetchall()
        numbers = [seq for seq, _, _ in new]
        expected = list(range(after + 1, row.last_seq + 1))
        require(numbers == expected, "events have no gaps", f"{row.id} has new events {numbers}, expected {expected}")
        statuses = [json.loads(data) for _, kind, data in new if kind == "status"]
        if old is None or (old.status, old.requested) != (row.status, row.requested):
            require(
                statuses and statuses[-1]["status"] == row.status,
                "a transition and its event are one transaction",
                f"{row.id} is {row.status}, and its last event says {statuses[-1:]}",
            )
        ends = [kind for _, kind, _ in new if kind == "end"]
        has_ended = row.status in TERMINAL and (old is None or old.status not in TERMINAL)
        require(len(ends) == has_ended, "a job ends once", f"{row.id} is {row.status}, with {len(ends)} new end events")
        self._reasons = [status["reason"] for status in statuses]

    def _check_transition(self, transaction: Transaction | None, old: Row, row: Row) -> None:
        reasons = self._reasons
        change = (old.status, row.status)
        if change == (Status.QUEUED, Status.RUNNING):
            self._leases.check_claim(transaction, old, row)
        elif row.status == Status.RUNNING and old.status == Status.RUNNING:
            same = (old.lease, old.lease_token, old.lease_owner) == (row.lease, row.lease_token, row.lease_owner)
            require(same, "a job has one lease", f"{row.id} changed its lease while it ran")
        elif row.status == Status.RUNNING:
            raise Violation("only queued jobs are claimed", f"{row.id} was {old.status}, and is running")
        if old.status == Status.RUNNING != row.status:
            self._leases.check_end(transaction, old, row, reasons)
        if row.epoch > old.epoch or "retried" in reasons:
            require(row.deaths == 0, "a lost worker is counted", f"{row.id} has {row.deaths} since an epoch or retry")
        used = (row.cpu_seconds or 0.0) - (old.cpu_seconds or 0.0)
        require(used >= 0, "usage never decreases", f"{row.id}: {old.cpu_seconds} and then {row.cpu_seconds}")
        if row.status != Status.RUNNING:
            require(row.lease_owner is None, "a job that does not run has no worker", row.id)
        if old.status in TERMINAL and row.status != old.status:
            require(
                row.status == Status.QUEUED and "retried" in reasons,
                "a job ends once",
                f"{row.id} was {old.status}, and is {row.status}",
            )
        if row.status == Status.SUCCEEDED != old.status:
            self._check_result(row)
        if "resumed" in reasons or row.status == Status.PAUSED:
            return
        if row.queued_ms != old.queued_ms:
            allowed = {"retried", "resumed", "promoted", "the sweep was resumed"}
            require(allowed & set(reasons), "a job keeps its place in the queue", f"{row.id}: {reasons}")

    def _check_result(self, row: Row) -> None:
        ask = self._ask_of(row.id)
        if ask is None:
            return
        _, digest = ask.result
        require(row.result_digest == digest, "same bits", f"{row.id} has another result than an undisturbed job")
        require(row.epoch == ask.epochs, "same bits", f"{row.id} ended after epoch {row.epoch} of {ask.epochs}")

    def _check_epochs(self, row: Row) -> None:
        """Epochs come in order, and are never written again with other values."""
        known = self._epochs.get(row.id)
        if known is not None and len(known) == row.epoch:
            return
        query = "SELECT epoch, metrics FROM epochs WHERE job_id = ? ORDER BY epoch"
        rows = self._connection.execute(query, (row.id,)).fetchall()
        numbers = [epoch for epoch, _ in rows]
        require(
            numbers == list(range(1, row.epoch + 1)), "epochs have no gaps", f"{row.id}, epoch {row.epoch}: {numbers}"
        )
        metrics = [text for _, text in rows]
        require(
            known is None or metrics[: len(known)] == known, "an epoch is written once", f"{row.id} has other metrics"
        )
        ask = self._ask_of(row.id)
        if ask is not None:
            expected, _ = ask.result
            for number, text in enumerate(metrics):
                require(json.loads(text) == expected[number], "same bits", f"{row.id}, epoch {number + 1}: {text}")
        self._epochs[row.id] = metrics

    def _check_counts(self) -> None:
        """The counters that decide who is served equal the counts of the rows."""
        for owner, *kept_and_counted in self._connection.execute(_QUEUE_COUNTS):
            kept, counted = kept_and_counted[:3], kept_and_counted[3:]
            require(kept == counted, "counters equal counts", f"{owner or 'everybody'}: {kept}, counted {counted}")

    def _check_sizes(self) -> None:
        query = """SELECT id FROM jobs WHERE size_bytes <>
            (SELECT COALESCE(SUM(size_bytes), 0) FROM artifacts WHERE job_id = jobs.id)"""
        wrong = self._connection.execute(query).fetchall()
        require(not wrong, "sizes equal sums", f"{wrong}")

    def _check_accepted(self) -> None:
        if not self._reach.restores:
            missing = self._ledger.jobs.keys() - self._rows.keys() - self._ledger.to_delete
            require(not missing, "accepted jobs stay", f"{missing}: acknowledged, and not there")
        numbers = Counter(ask.number for job_id in self._rows if (ask := self._ask_of(job_id)) is not None)
        twice = [number for number, count in numbers.items() if count > 1]
        require(not twice, "one job for each request", f"requests {twice} made several jobs")

    def _ask_of(self, job_id: str) -> Ask | None:
        """What a user wanted of a job; ``None`` for a trial of a sweep."""
        if job_id not in self._asks:
            row = self._connection.execute("SELECT spec FROM jobs WHERE id = ?", (job_id,)).fetchone()
            number = json.loads(row[0]).get("request") if row is not None else None
            if number is None:
                return None
            self._asks[job_id] = self._ledger.asked[number]
        return self._asks[job_id]

    # Files

    def _read_paths(self) -> None:
        self._paths = frozenset(path for (path,) in self._connection.execute("SELECT path FROM artifacts"))
        self._bucket_version = -1

    def _check_files(self) -> None:
        """What a row names is stored."""
        version = sum(bucket.version for bucket in _buckets())
        if version == self._bucket_version:
            return
        self._bucket_version = version
        missing = [path for path in self._paths if not any(path in bucket.objects for bucket in _buckets())]
        missing = [path for path in missing if path not in self._lost_files]
        require(not missing, "files before rows", f"{missing} have rows, and are not stored")

    # The end

    def check_end(self, *, is_quiescent: bool) -> None:
        """After the faults have stopped, every job ends, and ends well."""
        open_jobs = {row.id: row.status for row in self._rows.values() if row.status not in TERMINAL}
        open_jobs |= {
            sweep_id: status for sweep_id, status in self._sweeps.statuses.items() if status not in SWEEP_ENDED
        }
        require(is_quiescent and not open_jobs, "every job ends", f"ten minutes after the last fault: {open_jobs}")
        for row in self._rows.values():
            code = json.loads(row.error).get("code") if row.error else None
            if row.status == Status.FAILED:
                allowed = ("worker_lost", "storage")
                require(code in allowed, "every job ends well", f"{row.id} has failed: {row.error}")
            if row.status == Status.CANCELLED:
                asked = row.id in self._ledger.cancelled or row.sweep_id is not None
                require(asked, "every job ends well", f"{row.id} was cancelled, and nobody asked for it")

    @property
    def next_message_ms(self) -> int | None:
        """When the next message is due."""
        return self._messages.next_ms

    def check_files_at_end(self, bucket: Bucket) -> None:
        """Nothing is stored that no row names."""
        self._messages.check_end()
        self._read_paths()
        named = self._paths | {ID_FILE, store_migration.FORMER}
        missing = {path for path in self._paths - self._lost_files if path not in bucket.objects}
        require(not missing, "files move before the service", f"{sorted(missing)}: not in its store")
        left = {path for path in bucket.objects if path not in named}
        require(not left, "no file is left behind", f"{sorted(left)}")


def _buckets() -> Iterable[Bucket]:
    return CURRENT.buckets.values()
