"""The rare branches that a long run must have reached: a simulator that never gets there tests nothing."""

from __future__ import annotations

from collections import Counter
from typing import Final

BRANCHES: Final = {
    "killed": "a process was killed between two steps",
    "killed in a transaction": "a process was killed inside a transaction, which was rolled back",
    "machine lost": "all processes of a machine died at once",
    "out of memory": "a training process died while its supervisor slept",
    "frozen past the lease": "a process slept for longer than a lease, and woke up",
    "everything slept": "all machines slept together",
    "failed before the commit": "a transaction failed, and the caller cannot know",
    "answer lost after the commit": "a transaction was committed, and the caller was told of an error",
    "database outage": "no process reached the database for a while",
    "writes refused": "the database answered, and accepted no writes",
    "one machine cut off": "a single machine did not reach the database",
    "clock set back": "the database's clock was set back",
    "clock set forward": "the database's clock was set forward",
    "database restored": "the database went back to an earlier state",
    "database restored under a lease": "… while a worker held a lease that the restored database did not know",
    "store answer lost": "an object was stored, and the caller was told of an error",
    "own object met": "a repeated request met its own object",
    "store outage": "the store did not respond for a while",
    "refused lease": "a worker's write met a lease that was held no more",
    "refused lease twice": "two writes of one worker met the same lost lease",
    "outcome unknown": "a lease was lost after an attempt whose answer was lost",
    "rescued": "the scheduler took a job from a lost worker",
    "probed": "a lease got a renewal probe, and was renewed",
    "fenced": "a worker killed its own child because it could not renew in time",
    "child lost": "a training process died, and its supervisor lived",
    "claim released": "a worker gave back a claim whose answer was lost",
    "released": "a worker gave back a job, by order",
    "drained": "an operator drained a worker",
    "preempted": "a job made room for an urgent one",
    "preemption forgotten": "a job was to make room, and its worker was lost first",
    "cancelled while running": "a running job was cancelled",
    "paused while running": "a running job was paused",
    "resumed": "a paused job was queued again",
    "continued": "a training continued from a checkpoint",
    "committed twice": "the commit of an epoch was repeated, and found itself",
    "several epochs in a commit": "short epochs shared a transaction",
    "machine fault": "a job was given back because its machine could not store files",
    "failed without a store": "a job failed because no worker could use the store",
    "budget spent": "a job paused because its budget was spent",
    "submitted twice": "a request was repeated under its idempotency key, and found its job",
    "deleted": "a job was deleted",
    "worker lost for good": "a job failed after three lost workers",
    "orphans removed": "files without a row were removed",
    "held by its sweep": "a trial paused at a rung",
    "decided by a worker": "a sweep advanced in the transaction of a worker",
    "decided by the scheduler": "a sweep advanced in a transaction of the scheduler",
    "sweep paused": "a sweep was paused while its trials ran",
    "message sent twice": "a receiver got a message again under its id",
    "message refused for good": "a receiver answered 410",
    "late record refused": "a sender whose lease was taken recorded nothing",
    "moved": "the service moved to another store while it ran",
    "wrong store": "a worker with the former store was refused",
}
"""Every branch, and what it means."""

ON_POSTGRESQL: Final = {
    "waited for a lock": "a statement waited for a lock of another transaction",
    "lock timeout": "… for longer than the product allows",
    "killed while it waited for a lock": "… and its session no longer waited",
    "lost its lease while it waited for a lock": "a worker's write got its lock, and met a lost lease",
    "skipped a locked row": "a query passed over a row that another transaction had locked",
    "transaction ended by the server": "a process slept inside a transaction for longer than the server allows",
}
"""Those that only PostgreSQL has."""

ON_SQLITE: Final = frozenset({"database restored", "database restored under a lease"})
"""Those that PostgreSQL does not have here."""


class Sometimes:
    """Counts how often each branch was reached."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, branch: str) -> None:
        """Count a branch.

        Raises:
            KeyError: there is no such branch.
        """
        if branch not in BRANCHES and branch not in ON_POSTGRESQL:
            raise KeyError(branch)
        self.counts[branch] += 1
