from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_until

pytestmark = pytest.mark.stack

LOCK_HOLDER = """
import os, subprocess, sys, time
from service.local.orphans import OrphanReaper
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
guard = OrphanReaper(lock, grace_s=0.5)
for command in sys.argv[2:]:
    child = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, process_group=0)
    child.stdout.readline()  # it is ready
    guard.watch(child.pid)
    print(child.pid, flush=True)
print(guard.pid, flush=True)
time.sleep(60)
"""
POLITE = "import time; print(flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"


def has_ended(pid: int) -> bool:
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text() or not os.path.exists(f"/proc/{pid}")
    except OSError:
        return True


def test_children_of_a_killed_process_are_stopped_even_if_they_ignore_sigterm(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", LOCK_HOLDER, str(tmp_path / "lock"), POLITE, STUBBORN], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    pids = [int(holder.stdout.readline()) for _ in range(3)]
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    wait_until(lambda: all(map(has_ended, pids)), "the end of both children and of the reaper")
