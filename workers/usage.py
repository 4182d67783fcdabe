"""CPU time and memory of a training process, measured by its supervisor and by the process itself.

The supervisor samples the child about once a second, so that the usage of a child that hangs or is killed is counted,
too. The child measures itself exactly, at each epoch and at its end. Both count from the child's command on, and add
the job's usage under earlier leases; totals never decrease.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from typing import Final

import psutil

from service.jobs.leases import Claim, Usage

_MAXRSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024
"""The unit of ``ru_maxrss``, in bytes."""


class ChildMeter:
    """Measures a child from its supervisor. Create it before the child gets its command."""

    def __init__(self, held: Claim, pid: int) -> None:
        self._before = held.cpu_seconds
        self._last = Usage(cpu_seconds=held.cpu_seconds, peak_memory_bytes=0)
        self._process: psutil.Process | None = None
        try:
            self._process = psutil.Process(pid)
            self._start_s = _processor_s(self._process)
        except psutil.Error:  # the child has ended, which the supervisor will notice
            self._process = None

    def sample(self) -> Usage:
        """The job's usage so far; after the child's end, the last sample."""
        if self._process is not None:
            try:
                with self._process.oneshot():
                    cpu_s = self._before + _processor_s(self._process) - self._start_s
                    memory = int(self._process.memory_info().rss)
            except psutil.Error:
                return self._last
            peak = max(memory, self._last.peak_memory_bytes)
            self._last = Usage(cpu_seconds=max(cpu_s, self._last.cpu_seconds), peak_memory_bytes=peak)
        return self._last


class OwnMeter:
    """Measures the current process. Create it when the process gets its command.

    Args:
        is_first: whether the process has trained no other job, whose peak of memory would count.
    """

    def __init__(self, held: Claim, *, is_first: bool = True) -> None:
        self._before = held.cpu_seconds
        self._start_s = _own_processor_s()
        self._epoch_s = time.thread_time()
        self._process = psutil.Process(os.getpid())
        self._knows_peak = is_first or _forget_peak()
        self._peak = 0

    def total(self) -> Usage:
        """The job's usage so far."""
        # The kernel updates the peak in steps: it may lag a few pages behind the resident memory.
        self._peak = max(self._peak, self.memory_bytes())
        if self._knows_peak:
            self._peak = max(self._peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT)
        return Usage(cpu_seconds=self._before + _own_processor_s() - self._start_s, peak_memory_bytes=self._peak)

    def begin_epoch(self) -> None:
        """Start to count the CPU time of an epoch, which is that of this thread: another one may still commit the last
        epoch."""
        self._epoch_s = time.thread_time()

    def epoch_seconds(self) -> float:
        """CPU time of this thread since the epoch began."""
        return time.thread_time() - self._epoch_s

    def memory_bytes(self) -> int:
        """Current resident memory."""
        return int(self._process.memory_info().rss)


def _forget_peak() -> bool:
    """Set the kernel's peak of this process to its current resident memory; false where that is not possible."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def _processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _own_processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
