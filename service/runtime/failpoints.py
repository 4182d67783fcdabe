"""Named places where a test may strike: ``reach("epoch_committed", 3)``. In a service they do nothing.

A test arms a process by ``TESTING_FAILPOINTS``, a folder. A file there, named after a place (``epoch_committed``, or
``epoch_committed.3`` for one detail of it), says what is to happen to whichever process comes by first: ``kill``,
``stop`` (as SIGSTOP), ``hang``, ``error`` (an OSError as of a full disk), ``memory`` (none is left), ``hoard`` (take
memory, up to 16 GiB), or ``note`` (nothing: its name will tell who came by, and when). The file is renamed before that,
so each strikes once. Nothing but the process's own environment can arm it; no request can.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Final

VARIABLE: Final = "TESTING_FAILPOINTS"

PLACES: Final = {
    "claimed": "the supervisor's claim is committed, and nobody has been told",
    "began": "the child has begun its lease",
    "restored": "the child has read the checkpoint from which it goes on",
    "batch_done": "a batch is done (the detail is its epoch)",
    "epoch_trained": "an epoch is trained, and nothing of it is written",
    "file_written": "a file is written and synced under its temporary name",
    "file_renamed": "a file has its name, but its folder is not synced",
    "files_stored": "all files of an epoch lie on disk, and no row names them",
    "epoch_committing": "inside the transaction of an epoch, just before it commits",
    "epoch_committed": "the epoch is committed, and files that are not needed any more are still there",
    "succeeding": "inside the transaction that ends a job, just before it commits",
    "succeeded": "the job has ended, and the supervisor does not know",
    "handing_back": "inside the transaction that gives a job back, just before it commits",
    "handed_back": "the job was given back, and the supervisor does not know",
    "deciding": "inside the transaction of a sweep's decisions, just before it commits (the detail is its last event)",
    "decided": "the scheduler's decisions on a sweep are committed, and nobody was woken up",
    "submitted": "a new job is committed, and the client has no answer",
}
"""Every place, and what is true there."""

_folder: Path | None = Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def arm(folder: Path | None) -> None:
    """Arm this very process, for a test that runs in it."""
    global _folder
    _folder = folder


def reach(place: str, detail: object = None) -> None:
    """Come by one of the ``PLACES``."""
    if _folder is None:
        return
    if place not in PLACES:
        raise KeyError(place)
    for name in (place, f"{place}.{detail}"):
        try:  # read first: once it is renamed, the test that waits for that may remove it
            how = (_folder / name).read_text().strip()
            (_folder / name).rename(_folder / f"{name}.taken-{os.getpid()}-{time.monotonic_ns()}")
        except FileNotFoundError:
            continue
        _strike(how, place)


class Struck(BaseException):
    """Stands for a kill where the process must live on, in a test of its own."""


def _strike(how: str, place: str) -> None:
    match how:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "hang":
            while True:
                time.sleep(3600)
        case "error":
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} (asked for at {place})")
        case "memory":
            raise MemoryError(f"asked for at {place}")
        case "hoard":
            held = [bytearray(2**26) for _ in range(256)]
            del held
        case "abandon":
            raise Struck(place)
        case "note":
            pass
        case _:
            raise ValueError(f"a failpoint cannot {how!r}")
