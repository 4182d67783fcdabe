"""Real workers, schedulers and servers, and methods to kill, freeze and cut them off."""

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from service.datasets.builtins import BUILT_IN
from service.runtime.failpoints import VARIABLE
from service.storage.artifacts import ArtifactFolder
from tests.faults.invariants import Reference, check
from tests.workers.conftest import WorkerHarness, children_of, is_alive, open_worker_harness

QUICK: dict[str, Any] = {
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
"""Seventeen batches an epoch, less than a millisecond each."""


_LOCKED_S = 3

FEW = 850
"""Training images in the dataset of these jobs."""


@functools.cache
def few_digits() -> Path:
    """A folder of datasets with ``few``: the first tenth of the digits that come along. It goes with this process."""
    root = Path(tempfile.mkdtemp(prefix="tapeline-few-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    (root / "few").mkdir()
    shipped = BUILT_IN["mnist-10k"].shipped
    assert shipped is not None
    for path in shipped.glob("*.gz"):
        whole = gzip.decompress(path.read_bytes())
        head = 16 if "images" in path.name else 8
        count = int.from_bytes(whole[4:8], "big")
        kept = (len(whole) - head) // 10
        few = whole[:4] + (count // 10).to_bytes(4, "big") + whole[8 : head + kept]
        (root / "few" / path.stem).write_bytes(few)
    return root


def wait_until(holds: Callable[[], object], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"in vain waited for: {what}"
        time.sleep(0.03)


def all_gone(pids: Sequence[int]) -> bool:
    return not any(map(is_alive, pids))


@dataclass
class FaultHarness(WorkerHarness):
    """Workers whose processes can be struck at failpoints."""

    accepted: list[str] = field(default_factory=list)
    extra: dict[str, str] = field(default_factory=dict)
    """More of the environment for processes that are started from now on."""

    @property
    def points(self) -> Path:
        folder = self.home.parent / "points"
        folder.mkdir(exist_ok=True)
        return folder

    def patch(self, code: str) -> None:
        """Have workers and schedulers that are started from now on run this first; nothing in the product does so."""
        folder = self.home.parent / f"patch-{len(list(self.home.parent.glob('patch-*')))}"
        folder.mkdir()
        body = "".join(f"    {line}\n" for line in code.strip().splitlines())
        text = f"import sys\nif 'workers' in ' '.join(sys.orig_argv):\n{body}"
        (folder / "sitecustomize.py").write_text(text)
        self.extra["PYTHONPATH"] = os.pathsep.join([str(folder), str(Path(__file__).parent.parent.parent)])

    def start(self, module: str = "workers", **more: str) -> subprocess.Popen[bytes]:
        return super().start(module, **{VARIABLE: str(self.points), **self.extra, **more})

    def submit(self, **spec: Any) -> str:
        self.accepted.append(super().submit(**QUICK | spec))
        return self.accepted[-1]

    def arm(self, place: str, how: str = "kill") -> None:
        unseen = self.points / f"{place}.arming"
        unseen.write_text(how)
        unseen.rename(self.points / place)  # nobody comes by a file that is still empty

    def until_struck(self, place: str, timeout_s: float = 60) -> int:
        """Wait until somebody came by; gives its process id."""

        def reached() -> list[Path]:
            return list(self.points.glob(f"{place}.reached-*"))

        try:
            wait_until(reached, f"somebody at {place}", timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None
        (found,) = reached()
        pid = int(found.name.partition(".reached-")[2].partition("-")[0])
        found.unlink()
        return pid

    def kill_at(self, place: str, *, then: str | None = None) -> None:
        """Kill whoever stopped at ``place``; the next point is armed first, for the next child may be there at once."""
        pid = self.until_struck(place)
        if then is not None:
            self.arm(then, "stop")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: all_gone([pid]), "the kill")

    def freeze(self, worker: subprocess.Popen[bytes]) -> bool:
        """Stop a worker between two transactions: what it had locked, it would lock for as long as it stands still.

        Returns:
            Whether it has stood still since the first signal. Otherwise it went on for a moment, also from a failpoint.
        """
        worker.send_signal(signal.SIGSTOP)
        stands_still = True
        while self._stays_locked():
            stands_still = False
            worker.send_signal(signal.SIGCONT)
            time.sleep(0.05)
            worker.send_signal(signal.SIGSTOP)
        return stands_still

    def _stays_locked(self) -> bool:
        """Whether a lock lasts for seconds, as a frozen worker's does; a child that warms up has one for a moment."""
        if self.database.is_sqlite:
            path = str(self.database.engine.url.database)
            with contextlib.closing(sqlite3.connect(path, timeout=_LOCKED_S, isolation_level=None)) as probe:
                return not _can(lambda: probe.execute("BEGIN IMMEDIATE"))
        with self.database.engine.connect() as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCKED_S}s'"))
            return not _can(lambda: connection.execute(text("SELECT id FROM jobs FOR UPDATE")))

    def until_all_end(self, timeout_s: float = 120) -> None:
        for job_id in self.accepted:
            self.until_end(job_id, timeout_s)

    def logs(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()[-3000:]}" for path in self.home.glob("*.log"))

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
        super().stop()

    def check(self, reference: Reference | None) -> None:
        """The common invariants, once everything has come to rest."""
        self.stop()
        for process in self.processes:
            assert not children_of(process.pid), "I8: a child outlived its worker"
        check(self.database, ArtifactFolder(self.settings.artifacts), self.accepted, reference)

    def deaths(self) -> int:
        """So often a worker was counted as lost."""
        reasons = [event.data["reason"] for job in self.accepted for event in self.log(job) if event.type == "status"]
        return sum(reason.startswith("worker lost") for reason in reasons)


def _can(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except (sqlite3.OperationalError, OperationalError):
        return False
    return True


def open_harness(home: Path, url: str) -> FaultHarness:
    made = open_worker_harness(home, url, data=few_digits())
    return FaultHarness(made.home, made.database, lease_s=3, data=made.data, train_count=FEW)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a worker and all its children at once, as a power cut does."""
    pids = [process.pid, *children_of(process.pid)]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: all_gone(pids), "their end")


def kill_training_child(worker: int) -> bool:
    """Kill the older of a worker's children; the younger one is the spare."""

    def began(pid: int) -> int:
        with contextlib.suppress(OSError):
            return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        return sys.maxsize

    children = [pid for pid in children_of(worker) if is_alive(pid)]
    if len(children) < 2:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(min(children, key=began), signal.SIGKILL)
        return True
    return False
