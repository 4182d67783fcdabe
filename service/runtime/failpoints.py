"""Failpoints: named places in the code where tests inject faults, as ``failpoint("epoch_committed", 3)``. Unarmed, they
do nothing.

A test arms a process with ``TESTING_FAILPOINTS``, a folder. A file in it, named after a failpoint
(``epoch_committed``, or ``epoch_committed.3`` for one detail), contains the fault for the first process that
reaches it: ``kill``, ``stop`` (SIGSTOP), ``hang``, ``error`` (the OSError of a full disk), ``memory``
(MemoryError), ``hoard`` (allocate up to 16 GiB), ``wait NAME`` (until a process has reached that failpoint, or the
test has created such a file), or ``note`` (nothing). The file is renamed first, to a name with process id and time,
so each fault is injected once. Only the environment of a process can arm it; requests cannot.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from service.declarations import extended, installed

VARIABLE: Final = "TESTING_FAILPOINTS"
_WAIT_TIMEOUT_S: Final = 60

_OF_KERNEL: Final = {
    "claimed": "the supervisor's claim is committed, and no child knows of it",
    "began": "the child has recorded the provenance of its run",
    "reuse_stored": "the files that a job takes over are on disk, and have no rows",
    "reusing": "inside the transaction in which a job takes over epochs, just before its commit",
    "reused": "the epochs that a job takes over are committed",
    "restored": "the child has loaded the checkpoint from which it continues",
    "batch_done": "a batch is done (the detail is its epoch)",
    "epoch_trained": "an epoch is trained, all before it are committed, and none of its files is written",
    "handed_over": "the writer has the snapshot of an epoch, and the next epoch has not begun",
    "overlapping": "a batch is done, and the epoch before is not committed",
    "file_written": "a file is written and synced under its temporary name",
    "file_renamed": "a file has its final name, but its folder is not synced",
    "object_stored": "an object is in the bucket, and the worker knows it (the detail is its kind, or the upload)",
    "files_stored": "all files of an epoch are on disk, and have no rows",
    "epoch_committing": "inside the transaction of an epoch, just before its commit",
    "epoch_committed": "the epoch is committed, and obsolete files are not removed yet",
    "tested": "the training is over and scored on the test part, and none of it is written",
    "succeeding": "inside the transaction that ends a job, just before its commit",
    "concluding": "inside the transaction that ends an investigation, just before its commit",
    "succeeded": "the job has ended, and the supervisor does not know it",
    "cleaned": "the child has cleared up after a job that ended well, and has not reported its end",
    "reported": "the child has reported the end of a job, and waits for its next command",
    "commanded": "the child has received a command, and has not confirmed it",
    "releasing": "inside the transaction that releases a job, just before its commit",
    "released": "the job was released, and the supervisor does not know it",
    "deciding": "inside the transaction of a sweep's decisions, just before its commit (the detail is its last event)",
    "decided": "the scheduler's decisions on a sweep are committed, and no worker is woken up yet",
    "store_claimed": "a migration back has its marker in the former store, and has not removed the id there",
    "file_migrated": "a migration has copied a file and noted it (the detail is the number of copied files)",
    "store_switched": "the database has the id of the new store, whose last files are not copied",
    "store_published": "the new store has its id, and the command has not ended",
    "submitted": "a new job is committed, and the client has no response",
}
PLACES: Final = extended(_OF_KERNEL, (item.failpoints for item in installed()))
"""Every failpoint, and the state of the system there."""

_folder: Path | None = Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None
_hook: Callable[[str, object], None] | None = None
"""Called at each failpoint by the simulator, which replaces it: tests/simulation."""


def arm(folder: Path | None) -> None:
    """Arm the current process, for a test that runs in it."""
    global _folder
    _folder = folder


def failpoint(place: str, detail: object = None) -> None:
    """Inject the fault that is armed for one of the ``PLACES``, if any."""
    if _hook is not None:
        _hook(place, detail)
    if _folder is None:
        return
    if place not in PLACES:
        raise KeyError(place)
    for name in (place, f"{place}.{detail}"):
        try:  # read before the rename: a test that waits for the rename may remove the file
            fault = (_folder / name).read_text().strip()
            (_folder / name).rename(_folder / f"{name}.reached-{os.getpid()}-{time.monotonic_ns()}")
        except FileNotFoundError:
            continue
        _inject(fault, place)


def _wait_for(name: str) -> None:
    deadline = time.monotonic() + _WAIT_TIMEOUT_S
    while _folder is not None and not list(_folder.glob(f"{name}.reached-*")):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no process has reached {name}")
        time.sleep(0.005)


class SimulatedKill(BaseException):
    """Simulates a kill in tests whose process must survive."""


def _inject(fault: str, place: str) -> None:
    match fault:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            # Sent to the process, the signal may reach another thread first, while this one leaves the failpoint.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        case "hang":
            while True:
                time.sleep(3600)
        case "error":
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} (injected at {place})")
        case "memory":
            raise MemoryError(f"injected at {place}")
        case "hoard":
            blocks = [bytearray(2**26) for _ in range(256)]
            del blocks
        case "abandon":
            raise SimulatedKill(place)
        case wait if wait.startswith("wait "):
            _wait_for(wait.removeprefix("wait "))
        case "note":
            pass
        case _:
            raise ValueError(f"{fault!r} is not a fault that a failpoint can inject")
