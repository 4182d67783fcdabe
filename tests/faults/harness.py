"""Real workers, schedulers and servers, and methods to kill, freeze and patch them."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gzip
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from service.datasets.builtins import BUILT_IN
from service.runtime.failpoints import VARIABLE
from service.states import Status
from service.storage.artifacts import ArtifactStore
from service.storage.database import now_ms
from service.storage.stores import ArtifactFolder
from service.storage.tables import Job
from tests.faults.invariants import Reference, check
from tests.waiting import wait_until
from tests.workers.conftest import POLL_OFTEN, WorkerHarness, children_of, is_alive, open_worker_harness

QUICK_SPEC: dict[str, Any] = {
    "kind": "classifier",
    "dataset": {"name": "few"},
    "epochs": 3,
    "batch_size": 50,
    "layers": [
        {"units": 16, "activation": "relu"},
        {"type": "dropout", "rate": 0.2},
        {"units": 10, "activation": "softmax"},
    ],
    "samples": {"count": 4},
    "checkpoint": {"keep_last": 2},
}
"""Seventeen batches per epoch, each of less than a millisecond."""


_LOCK_TIMEOUT_S = 3
COMMITS_EACH_EPOCH = {"COMMITS_EACH_EPOCH": "1"}
"""For ``extra_environ``: short epochs share no commit, see ``POLL_OFTEN``."""

LONG_LEASE_S = 600.0
"""For tests in which no lease expires: at 3 s, a worker without CPU time for two seconds stops its own child."""

FEW = 850
"""Number of training images in the ``few`` dataset."""


@functools.cache
def few_digits() -> Path:
    """A dataset folder with ``few``, the first tenth of the bundled digits. It is deleted at exit."""
    root = Path(tempfile.mkdtemp(prefix="tapeline-few-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    (root / "few").mkdir()
    bundled_folder = BUILT_IN["mnist-10k"].shipped
    assert bundled_folder is not None
    for path in bundled_folder.glob("*.gz"):
        content = gzip.decompress(path.read_bytes())
        header_size = 16 if "images" in path.name else 8
        image_count = int.from_bytes(content[4:8], "big")
        kept_bytes = (len(content) - header_size) // 10
        tenth = content[:4] + (image_count // 10).to_bytes(4, "big") + content[8 : header_size + kept_bytes]
        (root / "few" / path.stem).write_bytes(tenth)
    return root


def all_exited(pids: Sequence[int]) -> bool:
    return not any(map(is_alive, pids))


@dataclass
class FaultHarness(WorkerHarness):
    """Workers, schedulers and servers with failpoints."""

    accepted: list[str] = field(default_factory=list)
    extra_environ: dict[str, str] = field(default_factory=dict)
    """Additional environment variables of processes that are started from now on."""
    patches: list[str] = field(default_factory=list)
    bucket: ArtifactStore | None = None
    """The store, if it is not the artifact folder."""

    @property
    def points(self) -> Path:
        folder = self.home.parent / "points"
        folder.mkdir(exist_ok=True)
        return folder

    def patch(self, code: str, *, program: str = "workers") -> None:
        """Run ``code`` first in workers and schedulers (or another program) started from now on, after that of
        earlier calls; the product has no such hook."""
        body = "".join(f"    {line}\n" for line in code.strip().splitlines())
        self.patches.append(f"if {program!r} in ' '.join(sys.orig_argv):\n{body}")
        folder = self.home.parent / f"patch-{len(self.patches)}"
        folder.mkdir()
        text = (POLL_OFTEN / "sitecustomize.py").read_text() + "".join(self.patches)
        (folder / "sitecustomize.py").write_text(text)
        self.extra_environ["PYTHONPATH"] = os.pathsep.join([str(folder), str(Path(__file__).parent.parent.parent)])

    def add_failpoint(self, place: str, method: str, *, after: bool = False) -> None:
        """Add a failpoint before or after each call of a method of workers started from now on.

        Args:
            method: as ``module:Class.method``. The detail of the failpoint is the type of its last argument.
        """
        module, _, path = method.partition(":")
        owner = path.partition(".")[0]
        call, point = "result = original(*arguments, **named)", f"failpoint({place!r}, type(arguments[-1]).__name__)"
        steps = [call, point] if after else [point, call]
        self.patch(
            f"from {module} import {owner}\n"
            "from service.runtime.failpoints import PLACES, failpoint\n"
            f"PLACES[{place!r}], original = 'added by a test', {path}\n"
            f"def observed(*arguments, **named):\n    {steps[0]}\n    {steps[1]}\n    return result\n"
            f"{path} = observed\n"
        )

    def start(self, module: str = "workers", **more: str) -> subprocess.Popen[bytes]:
        return super().start(module, **{VARIABLE: str(self.points), **self.extra_environ, **more})

    def submit(self, **spec: Any) -> str:
        self.accepted.append(super().submit(**QUICK_SPEC | spec))
        return self.accepted[-1]

    def arm(self, place: str, fault: str = "kill") -> None:
        temporary = self.points / f"{place}.arming"
        temporary.write_text(fault)
        temporary.rename(self.points / place)  # so that no process reads a file that is still empty

    def until_reached(self, place: str, timeout_s: float = 60) -> int:
        """Wait until a process has reached ``place``, and return its process id."""

        def reached() -> list[Path]:
            return list(self.points.glob(f"{place}.reached-*"))

        wait_until(reached, f"a process at {place}", timeout_s)
        (marker,) = reached()
        pid = int(marker.name.partition(".reached-")[2].partition("-")[0])
        marker.unlink()
        return pid

    def freeze(self, worker: subprocess.Popen[bytes]) -> None:
        """Stop a worker outside its transactions: a frozen worker would keep its locks."""
        worker.send_signal(signal.SIGSTOP)
        while self._stays_locked():
            worker.send_signal(signal.SIGCONT)
            time.sleep(0.05)
            worker.send_signal(signal.SIGSTOP)

    def _stays_locked(self) -> bool:
        """Whether a lock lasts for seconds, as a frozen worker's does; a starting child locks briefly."""
        with self.database.engine.connect() as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'"))
            return not _succeeds(lambda: connection.execute(text("SELECT id FROM jobs FOR UPDATE")))

    def until_leases_are_overdue(self, by_s: float) -> None:
        """Wait until the leases of all running jobs expired ``by_s`` ago. It only reads, directly from the database."""

        def are_overdue() -> bool:
            with self.database.read() as session:
                running = select(func.max(Job.lease_expires_ms)).where(Job.status == Status.RUNNING)
                return bool(session.scalar(select(now_ms() > running.scalar_subquery() + 1000 * by_s)))

        wait_until(are_overdue, "the expiry of all leases")

    def until_all_end(self, timeout_s: float = 120) -> None:
        for job_id in self.accepted:
            self.until_end(job_id, timeout_s)

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
        super().stop()

    def check(self, references: Reference | Mapping[str, Reference] | None) -> None:
        """Stop all processes, then check the invariants."""
        self.stop()
        for process in self.processes:
            assert not children_of(process.pid), "I8: a child outlived its worker"
        check(self.database, self.bucket or ArtifactFolder(self.settings.artifacts), self.accepted, references)

    def worker_losses(self) -> int:
        """The number of recorded worker losses."""
        reasons = [event.data["reason"] for job in self.accepted for event in self.log(job) if event.type == "status"]
        return sum(reason == "lost" for reason in reasons)


def _succeeds(query: Callable[[], object]) -> bool:
    try:
        query()
    except (sqlite3.OperationalError, OperationalError):
        return False
    return True


def open_harness(home: Path, url: str) -> FaultHarness:
    workers = open_worker_harness(home, url, data=few_digits())
    return FaultHarness(workers.home, workers.database, lease_s=3, data=workers.data, train_count=FEW)


def kill_training_child(worker: int) -> bool:
    """Kill the oldest child of a worker (the youngest is the spare), and return whether it was killed."""

    def start_time(pid: int) -> int:
        with contextlib.suppress(OSError):
            return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        return sys.maxsize

    children = [pid for pid in children_of(worker) if is_alive(pid)]
    if len(children) < 2:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(min(children, key=start_time), signal.SIGKILL)
        return True
    return False
